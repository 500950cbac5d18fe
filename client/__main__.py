"""`python -m client`: import a catalogue, search with a photo or with many items, watch or cancel a job."""

from typing import Any

import click

from client.api import Api
from client.commands.batches import results, search_batch
from client.commands.imports import import_catalogue
from client.commands.jobs import cancel, status, watch
from client.commands.searches import search
from client.commands.session import DEFAULT_SERVER, EXIT_FAILED, Session
from client.output import console_for, plain
from client.problems import ApiError


class _ClientGroup(click.Group):
    """Ends with one line, not with a traceback, when the API refuses or is out of reach."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ApiError as error:
            console_for(stderr=True).print(plain(f"error: {error}"), soft_wrap=True)
            raise SystemExit(EXIT_FAILED) from None


@click.group(cls=_ClientGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option(
    "--server",
    envvar="LOOKALIKE_SERVER",
    show_envvar=True,
    default=DEFAULT_SERVER,
    show_default=True,
    metavar="URL",
    help="The Lookalike server.",
)
@click.option("--key", envvar="LOOKALIKE_KEY", show_envvar=True, metavar="KEY", help="API key, where one is needed.")
@click.option("--json", "as_json", is_flag=True, help="Print the API's JSON instead of tables.")
@click.pass_context
def client(context: click.Context, server: str, key: str | None, as_json: bool) -> None:
    """Search a catalogue by photo, and fill it, through the API of a Lookalike server."""
    context.obj = Session(Api(server, key), as_json, console_for(), console_for(stderr=True))


client.add_command(import_catalogue)
client.add_command(search)
client.add_command(search_batch)
client.add_command(results)
client.add_command(watch)
client.add_command(cancel)
client.add_command(status)

if __name__ == "__main__":
    client(prog_name="python -m client")
