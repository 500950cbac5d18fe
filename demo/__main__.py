"""`make demo`: everything on this machine, a catalogue in it, one search answered."""

import signal
import sys
from pathlib import Path
from types import FrameType

import click

from client.output import console_for
from client.problems import ApiError
from demo.photo import NoPhoto
from demo.ports import first_free_port, is_free
from demo.process import ProcessFailed
from demo.redis_server import NoRedisServer
from demo.run import run_demo
from demo.scenario import DemoFailed
from demo.state_lock import StateInUse

USUAL_PORT = 8000
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
EXPECTED = (ApiError, DemoFailed, NoPhoto, NoRedisServer, ProcessFailed, StateInUse)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--once", is_flag=True, envvar="ONCE", show_envvar=True, help="End after the answer.")
@click.option(
    "--catalog",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="CATALOG",
    show_envvar=True,
    help="Catalogue to import: CSV, NDJSON, Parquet or ZIP. Unset: a sample that is drawn for the demo.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    envvar="PORT",
    show_envvar=True,
    help=f"Where the page listens on 127.0.0.1. Unset: {USUAL_PORT} or the next free one.",
)
def demo(once: bool, catalog: Path | None, port: int | None) -> None:
    """Start everything, import a catalogue, search it with a photo, and stay up until Ctrl-C."""
    if port is not None and not is_free(port):
        raise click.BadParameter(f"{port} is taken; leave it out to get a free one", param_hint="PORT")
    signal.signal(signal.SIGTERM, _end)
    try:
        run_demo(console_for(), once=once, catalog=catalog, port=port or first_free_port(USUAL_PORT))
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
        raise SystemExit(EXIT_INTERRUPTED) from None
    except EXPECTED as error:
        click.echo(f"The demo failed: {error}", err=True)
        raise SystemExit(EXIT_FAILED) from None


def _end(signum: int, frame: FrameType | None) -> None:
    sys.exit(EXIT_TERMINATED)  # as an exception, so that everything that was started is stopped on the way


if __name__ == "__main__":
    demo(prog_name="python -m demo")
