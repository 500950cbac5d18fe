"""`import`: sends a catalogue and reports on every row."""

import csv
from itertools import islice
from pathlib import Path
from typing import Any

import click

from client.api import Job
from client.commands.session import EXIT_ROWS_LEFT_OUT, Session, pass_session
from client.output import SHOWN_ROW_ERRORS, import_summary, row_errors_table, spreadsheet_cell
from client.sending import send_catalogue

ROW_ERROR_FIELDS = ("line", "item_id", "code", "detail")
COLUMN_ROLES = ("id", "title", "image")


def _parse_columns(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    columns = {}
    for value in values:
        role, equals, name = value.partition("=")
        if role not in COLUMN_ROLES or not equals or not name:
            raise click.BadParameter(f"{value!r} is not ROLE=COLUMN with ROLE one of {', '.join(COLUMN_ROLES)}")
        columns[role] = name
    return columns


@click.command("import", epilog="Exit status: 0 all rows imported, 1 failed or cancelled, 3 some rows were left out.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--server-path", metavar="PATH", help="Import a file that is below the server's import root already.")
@click.option(
    "--mode",
    type=click.Choice(["upsert", "replace"]),
    default="upsert",
    show_default=True,
    help="replace also deletes every item that the file doesn't name.",
)
@click.option(
    "--column",
    "columns",
    metavar="ROLE=COLUMN",
    multiple=True,
    callback=_parse_columns,
    help="Name of the file's column for id, title or image, for example --column id=sku. May be repeated.",
)
@click.option("--encoding", default="utf-8", show_default=True, help="Text encoding of CSV and NDJSON.")
@click.option(
    "--duplicate-min-cosine",
    type=click.FloatRange(0.5, 1),
    metavar="COSINE",
    help="From which cosine two items are reported as near-duplicates; unset: as the server's release was calibrated.",
)
@click.option(
    "--errors",
    "errors_file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="CSV",
    help="Write every row that was left out, with the reason, to this file.",
)
@click.option("--no-wait", is_flag=True, help="Print the job's id and end, without watching the job.")
@pass_session
def import_catalogue(
    session: Session,
    file: Path | None,
    server_path: str | None,
    mode: str,
    columns: dict[str, str],
    encoding: str,
    duplicate_min_cosine: float | None,
    errors_file: Path | None,
    no_wait: bool,
) -> None:
    """Import a catalogue FILE: CSV, NDJSON, Parquet or ZIP.

    Images that a row names by relative path are sent along from the folder of FILE;
    images that are named by URL are fetched by the server.
    """
    if (file is None) == (server_path is None):
        raise click.UsageError("Name exactly one of FILE and --server-path.")
    parameters: dict[str, Any] = {"mode": mode, "encoding": encoding, "columns": columns}
    if duplicate_min_cosine is not None:
        parameters["duplicate_min_cosine"] = duplicate_min_cosine
    if file is not None:
        job = send_catalogue(session.api, file, parameters, session.notes)
    else:
        job = session.api.import_server_path(str(server_path), parameters)
    if no_wait:
        session.print_sent(job)
        return
    session.note(f"job {job['id']}")
    report_import(session, session.follow(job), errors_file)


def report_import(session: Session, job: Job, errors_file: Path | None = None) -> None:
    """Print what an import that has ended did; ends the program with status 3 where rows were left out."""
    if errors_file:
        _write_row_errors(session, job["id"], errors_file)
    result = session.require_success(job)
    if session.as_json:
        session.print_json(job)
    else:
        session.out.print(import_summary(result), markup=False)
    if not result["failed"]:
        return
    if not session.as_json:
        _print_row_errors(session, job["id"], result["failed"], errors_file)
    raise SystemExit(EXIT_ROWS_LEFT_OUT)


def _print_row_errors(session: Session, job_id: str, failed: int, errors_file: Path | None) -> None:
    errors = session.api.row_errors(job_id)
    session.out.print(row_errors_table(islice(errors, SHOWN_ROW_ERRORS)))
    if failed > SHOWN_ROW_ERRORS and not errors_file:
        session.note(f"{failed - SHOWN_ROW_ERRORS:,} more; --errors FILE writes all of them")


def _write_row_errors(session: Session, job_id: str, file: Path) -> None:
    written = 0
    with file.open("w", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, ROW_ERROR_FIELDS, restval="")
        writer.writeheader()
        for error in session.api.row_errors(job_id):
            writer.writerow({field: spreadsheet_cell(error.get(field)) for field in ROW_ERROR_FIELDS})
            written += 1
    session.note(f"{written:,} row errors written to {file}")
