"""What every command needs: the server, where to print, and how to end."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import click
from rich.console import Console

from client.api import Api, Job
from client.output import plain
from client.watching import follow

DEFAULT_SERVER = "http://127.0.0.1:8000"
EXIT_FAILED = 1
EXIT_ROWS_LEFT_OUT = 3
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Session:
    """One run of the client."""

    api: Api
    as_json: bool
    out: Console
    notes: Console

    def print_json(self, value: Any) -> None:
        """Print a body of the API, unformatted where it is piped."""
        indent = 2 if self.out.is_terminal else None
        click.echo(json.dumps(value, indent=indent, ensure_ascii=False))

    def print_sent(self, job: Job) -> None:
        """Print a job that is not followed: its id, or all of it."""
        if self.as_json:
            self.print_json(job)
        else:
            click.echo(job["id"])

    def note(self, text: str) -> None:
        """Print one line for a person, apart from the output proper."""
        self.notes.print(plain(text), soft_wrap=True)

    def fail(self, text: str) -> NoReturn:
        """Say why in one line and end with status 1."""
        self.note(f"error: {text}")
        raise SystemExit(EXIT_FAILED)

    def follow(self, job: Job) -> Job:
        """Show a job's progress until it ends; Ctrl-C leaves the job alone and says so."""
        with self._job_goes_on(job["id"]):
            return follow(self.api, job, self.notes)

    def require_success(self, job: Job) -> dict[str, Any]:
        """Return the result of a job that has ended, or fail with its error."""
        if job["status"] != "succeeded":
            if self.as_json:
                self.print_json(job)
            error = job.get("error") or {}
            self.fail(f"{error['detail']} ({error['code']})" if error else f"job {job['id']} was {job['status']}")
        result: dict[str, Any] = job["result"]
        return result

    @contextmanager
    def _job_goes_on(self, job_id: str) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            command = "python -m client"
            if self.api.server != DEFAULT_SERVER:
                command += f" --server {self.api.server}"
            self.note(
                f"Job {job_id} goes on. Watch it: {command} watch {job_id} · Cancel it: {command} cancel {job_id}"
            )
            raise SystemExit(EXIT_INTERRUPTED) from None


pass_session = click.make_pass_decorator(Session)
