"""Shows a job's progress until it ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from client.api import Api, Job
from client.output import counted


class _ServerRate(ProgressColumn):
    """Rate and remaining time as the server measured them: it knows more than this terminal saw."""

    def render(self, task: Task) -> Text:
        parts = []
        if (rate := task.fields.get("rate")) is not None:
            parts.append(f"{rate:.1f}/s")
        if (eta := task.fields.get("eta")) is not None and not task.finished:
            parts.append(f"{timedelta(seconds=round(eta))} left")
        if failed := task.fields.get("failed"):
            is_import = task.fields.get("kind") == "import"
            parts.append(f"{counted(failed, 'row')} left out" if is_import else f"{failed:,} failed")
        return Text(" · ".join(parts), style="dim")


def follow(api: Api, job: Job, console: Console) -> Job:
    """Show a progress bar until the job has ended, and return it as it ended.

    The bar moves only on a terminal; elsewhere its last state is printed.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _ServerRate())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(job["kind"], total=None)
        for update in api.updates(job):
            progress = update.get("progress") or {}
            bar.update(
                task,
                description=f"{update['kind']} {update['status']}",
                completed=progress.get("done", 0),
                total=progress.get("total"),
                rate=progress.get("rate_per_second"),
                eta=progress.get("eta_seconds"),
                failed=progress.get("failed"),
                kind=update["kind"],
            )
    return update


@contextmanager
def packing_progress(console: Console) -> Iterator[Callable[[int], None]]:
    """Show how many images were packed; yields what to call with their number."""
    columns = (SpinnerColumn(), TextColumn("packing"), TextColumn("{task.completed:,} images"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("packing", total=None)
        yield lambda images: bar.update(task, completed=images)


@contextmanager
def upload_progress(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Show how much was uploaded; yields what to call with the bytes sent and the bytes in all."""
    columns = (TextColumn("upload"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("upload", total=None)
        yield lambda sent, total: bar.update(task, completed=sent, total=total)
