"""What the demo shows once everything runs: an import, a search, and where to go on."""

from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console

from client.api import Api, Job
from client.output import SHOWN_ROW_ERRORS, import_summary, plain, print_search, row_errors_table
from client.sending import send_catalogue
from client.watching import follow
from demo.photo import Photo


class DemoFailed(RuntimeError):
    """A job of the demo ended without success."""


def import_catalogue(api: Api, catalogue: Path, console: Console, *, server_path: str | None = None) -> int:
    """Import a catalogue through the API with a progress bar, print what came of it, return the rows left out.

    Args:
        api: the server.
        catalogue: file to import.
        console: where to print.
        server_path: the file as the server can read it itself; None uploads it, packed with its images.

    Raises:
        DemoFailed: if the job ends without success.
    """
    if server_path is None:
        job = send_catalogue(api, catalogue, {}, console)
    else:
        job = api.import_server_path(server_path, {})
    job = follow(api, job, console)
    result = _result(job)
    console.print(import_summary(result), markup=False)
    if result["failed"]:
        console.print(row_errors_table(islice(api.row_errors(job["id"]), SHOWN_ROW_ERRORS)))
    return int(result["failed"])


def search(api: Api, photo: Photo, console: Console) -> None:
    """Search with a photo and print the best items.

    Raises:
        DemoFailed: if the job ends without success.
    """
    console.print()
    console.print(plain(f"The items that look most like {photo.name}:"))
    *_, job = api.updates(photo.search(api))
    print_search(console, _result(job))


def print_addresses(api: Api, photo: Photo, logs: Path, console: Console) -> None:
    """Print where people find the page, the documentation and the logs, and a search to copy."""
    example = photo.name if photo.content else "PHOTO.jpg"
    console.print()
    console.print("Page      ", f"{api.server}/", style="bold", markup=False)
    console.print("API       ", f"{api.server}/docs", markup=False)
    console.print("Logs      ", str(logs), markup=False, soft_wrap=True)
    console.print(
        "Try       ", f"curl -F image=@{example} -H 'Prefer: wait=10' {api.server}/v1/searches", soft_wrap=True
    )


def _result(job: Job) -> dict[str, Any]:
    if job["status"] != "succeeded":
        error = job.get("error") or {}
        reason = f"{error['detail']} ({error['code']})" if error else job["status"]
        raise DemoFailed(f"The {job['kind']} didn't succeed: {reason}")
    result: dict[str, Any] = job["result"]
    return result
