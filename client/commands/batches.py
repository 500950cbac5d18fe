"""`search-batch`: searches with many items or photos in one job; `results` fetches the answers."""

import sys
from pathlib import Path
from typing import Any

import click

from client.api import Job
from client.commands.session import EXIT_ROWS_LEFT_OUT, Session, pass_session
from client.commands.terms import given_terms, term_options
from client.output import batch_summary
from client.queries import is_ndjson, lines_of
from client.watching import upload_progress

out_option = click.option(
    "--out",
    "-o",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Write the answers to this file, one JSON object a line; else they are printed.",
)


@click.command("search-batch", epilog="Exit status: 0 all answered, 1 failed or cancelled, 3 some queries failed.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--all", "all_items", is_flag=True, help="Search with every item of the catalogue.")
@term_options
@out_option
@click.option("--no-wait", is_flag=True, help="Print the job's id and end; `results JOB` fetches the answers.")
@pass_session
def search_batch(
    session: Session, file: Path | None, all_items: bool, out: Path | None, no_wait: bool, **options: Any
) -> None:
    """Search with many items, or photos by URL, in one job.

    FILE holds one item's id a line; or NDJSON, each line a search with item_id or image_url and its own k, filter and
    so on, as in the API.
    """
    if (file is None) != all_items:
        raise click.UsageError("Name exactly one of FILE and --all.")
    terms = given_terms(**options)
    if file is None:
        job = session.api.search_batch({**terms, "all_items": True})
    elif terms and is_ndjson(file):
        raise click.UsageError("The lines of NDJSON name their own k, filter and so on; leave the options out.")
    else:
        with lines_of(file, terms) as lines, upload_progress(session.notes) as on_sent:
            job = session.api.search_lines(lines, on_sent)
    if no_wait:
        session.print_sent(job)
        return
    session.note(f"job {job['id']}")
    job = session.follow(job)
    session.require_success(job)
    _write_answers(session, job["id"], out)
    if session.as_json and out is not None:
        session.print_json(job)
    report_batch(session, job)


@click.command("results")
@click.argument("job_id", metavar="JOB")
@out_option
@pass_session
def results(session: Session, job_id: str, out: Path | None) -> None:
    """Fetch the answers of a batch search that has succeeded."""
    _write_answers(session, job_id, out)


def report_batch(session: Session, job: Job) -> None:
    """Say what a batch search that has ended did; ends the program with status 3 where queries failed."""
    result = session.require_success(job)
    session.note(batch_summary(result))
    if result["failed"]:
        raise SystemExit(EXIT_ROWS_LEFT_OUT)


def _write_answers(session: Session, job_id: str, out: Path | None) -> None:
    answers = session.api.results(job_id)
    if out is None:
        stdout = sys.stdout.buffer
        for piece in answers:
            stdout.write(piece)
        return
    aside = out.with_name(f"{out.name}.part")  # whoever finds the file finds all of it
    try:
        with aside.open("wb") as file:
            file.writelines(answers)
        aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)
    session.note(f"answers written to {out}")
