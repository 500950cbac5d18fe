"""API keys on the command line, for whoever can reach the database.

python -m web.keys create --name storefront --scope search --days 365
python -m web.keys list
python -m web.keys rotate ID --overlap-hours 24
python -m web.keys revoke ID
python -m web.keys webhook-secret ID
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any

import click
from sqlalchemy.exc import SQLAlchemyError

from shared.database import connect_database
from shared.errors import ApiKeyNotFound, LookalikeError
from shared.migrations import upgrade
from shared.settings import load_settings
from shared.webhook_secrets import signing_secrets
from web.api_keys import ApiKey, ApiKeys, Scope


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Make, list, replace and revoke the keys that the API asks for."""


def _with_keys(command: Callable[..., None]) -> Callable[..., None]:
    """Hand the command the keys of the database that the settings name."""

    @wraps(command)
    def run(**options: Any) -> None:
        engine = connect_database(load_settings().database_url)
        try:
            upgrade(engine)
            command(ApiKeys(engine), **options)
        except SQLAlchemyError as error:
            raise click.ClickException(f"The database at DATABASE_URL can't be used: {error}") from error
        except LookalikeError as error:
            raise click.ClickException(error.detail) from error
        finally:
            engine.dispose()

    return run


@main.command()
@click.option("--name", required=True, help="Whose it is, for people.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([scope.value for scope in Scope]),
    multiple=True,
    required=True,
    help="What it is good for; admin: everything. May be repeated.",
)
@click.option("--days", type=click.IntRange(1, 3660), help="Expires after so many.  [default: never]")
@_with_keys
def create(keys: ApiKeys, name: str, scopes: tuple[str, ...], days: int | None) -> None:
    """Make a key and print it. It can't be shown again."""
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    _print(*keys.create(name, [Scope(scope) for scope in dict.fromkeys(scopes)], expires_at))


@main.command("list")
@_with_keys
def list_keys(keys: ApiKeys) -> None:
    """List all keys, the newest first."""
    for key in keys.all():
        click.echo(_line(key))


@main.command()
@click.argument("key_id")
@click.option("--overlap-hours", type=click.IntRange(0, 720), default=24, show_default=True)
@_with_keys
def rotate(keys: ApiKeys, key_id: str, overlap_hours: int) -> None:
    """Make a key that replaces another; both are good for a while."""
    _print(*keys.rotate(key_id, timedelta(hours=overlap_hours)))


@main.command()
@click.argument("key_id")
@_with_keys
def revoke(keys: ApiKeys, key_id: str) -> None:
    """End a key, within five seconds."""
    click.echo(_line(keys.revoke(key_id)))


@main.command("webhook-secret")
@click.argument("key_id")
@_with_keys
def webhook_secret(keys: ApiKeys, key_id: str) -> None:
    """Print the secret that verifies the callbacks of a key's jobs; below it a second one, while two are good."""
    if key_id not in {key.id for key in keys.all()}:
        raise ApiKeyNotFound(f"There is no key {key_id!r}; `list` tells all.")
    secrets = signing_secrets(load_settings(), key_id)
    if not secrets:
        raise click.ClickException("LOOKALIKE_WEBHOOK_SECRET is not set, so there are no callbacks.")
    click.echo("\n".join(secrets))


def _print(key: ApiKey, text: str) -> None:
    click.echo(_line(key), err=True)
    click.echo(text)


def _line(key: ApiKey) -> str:
    now = datetime.now(UTC)
    state = "usable" if key.is_usable(now) else "revoked" if key.revoked_at else "expired"
    expires = "never expires" if key.expires_at is None else f"expires {key.expires_at:%Y-%m-%d %H:%M}"
    used = "never used" if key.last_used_at is None else f"last used {key.last_used_at:%Y-%m-%d %H:%M}"
    return f"{key.id}  {key.name}  {'+'.join(key.scopes)}  {state}, {expires}, {used}"


if __name__ == "__main__":
    main()
