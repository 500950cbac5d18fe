"""Who may do what: one table of all routes, asked before each request."""

import ipaddress
from datetime import UTC, datetime
from typing import NamedTuple

from flask import Flask, g, request
from sqlalchemy.exc import SQLAlchemyError

from shared.errors import ApiKeyInvalid, ApiKeyMissing, JobNotFound, ScopeMissing
from shared.job_record import JobRecord
from shared.logs import add_log_ids
from shared.settings import InvalidSettings, Settings
from web.api_keys import ApiKey, ApiKeys, Scope

OPEN = None
"""For everybody."""

ANY = frozenset(Scope)
SEARCHERS = frozenset({Scope.SEARCH})
SUPPLIERS = frozenset({Scope.CATALOGUE})
ADMINS = frozenset({Scope.ADMIN})

# One of these scopes is needed; a route that is not named here is for admins alone.
NEEDED: dict[tuple[str, str], frozenset[Scope] | None] = {
    ("POST", "/v1/searches"): SEARCHERS,
    ("POST", "/v1/searches/batch"): SEARCHERS,
    ("GET", "/v1/jobs/<job_id>"): ANY,
    ("DELETE", "/v1/jobs/<job_id>"): ANY,
    ("GET", "/v1/jobs/<job_id>/errors"): ANY,
    ("GET", "/v1/jobs/<job_id>/results"): ANY,
    ("POST", "/v1/imports"): SUPPLIERS,
    ("GET", "/v1/items"): ANY,
    ("GET", "/v1/items/<item_id>"): ANY,
    ("PUT", "/v1/items/<item_id>"): SUPPLIERS,
    ("DELETE", "/v1/items/<item_id>"): SUPPLIERS,
    ("GET", "/v1/items/<item_id>/image"): OPEN,  # to those who have its link: see `check_link`
    ("GET", "/v1/attributes"): ANY,
    ("POST", "/v1/releases"): ADMINS,
    ("GET", "/v1/releases"): ADMINS,
    ("GET", "/v1/releases/<release_id>"): ADMINS,
    ("POST", "/v1/releases/<release_id>/activate"): ADMINS,
    ("POST", "/v1/keys"): ADMINS,
    ("GET", "/v1/keys"): ADMINS,
    ("DELETE", "/v1/keys/<key_id>"): ADMINS,
    ("POST", "/v1/keys/<key_id>/rotate"): ADMINS,
    ("GET", "/metrics"): ADMINS,
    ("GET", "/healthz"): OPEN,
    ("GET", "/readyz"): OPEN,
    ("GET", "/"): OPEN,
    ("GET", "/docs"): OPEN,
    ("GET", "/openapi.json"): OPEN,
    ("GET", "/static/<path:filename>"): OPEN,
}
OPEN_PREFIXES = ("/docs/",)  # the pages that show the OpenAPI document


class Caller(NamedTuple):
    """Who sent the request that is being answered.

    Attributes:
        key: None where none was sent, or none is needed.
        is_trusted: whether everything is allowed, since this server is open to all who reach it.
        has_bad_key: whether one was sent that is not usable.
    """

    key: ApiKey | None
    is_trusted: bool
    has_bad_key: bool = False

    @property
    def owner(self) -> str | None:
        """Whose the jobs are that it makes; None where everybody may see them."""
        return None if self.key is None else self.key.id


NOBODY = Caller(None, False)


def needs_keys(settings: Settings) -> bool:
    """Whether requests need a key: unless this server is reached by this machine alone, or is open on purpose."""
    if settings.access == "auto":
        return not is_loopback(settings.web_bind) or settings.trusted_proxies > 0  # who has a proxy has clients
    return settings.access == "keys"


def check_that_keys_exist(keys: ApiKeys, settings: Settings) -> None:
    """Refuse to start where nobody could call anything.

    Raises:
        InvalidSettings: if keys are needed and there is none to manage them with.
    """
    try:
        exists = keys.has_admin()
    except SQLAlchemyError:
        return  # a database that is away, or not migrated yet, is told by /readyz; without keys nobody comes in
    if not exists:
        raise InvalidSettings(
            f"Who reaches {settings.web_bind} needs an API key, and there is none. Make one:\n"
            "  python -m web.keys create --name NAME --scope admin\n"
            "or set LOOKALIKE_ACCESS=open, and everybody who reaches that address may read, change and delete all."
        )


def identify(app: Flask, keys: ApiKeys, settings: Settings) -> None:
    """Find out who sends each request, before anything else is done for it."""
    is_open = not needs_keys(settings)

    @app.before_request
    def find_caller() -> None:
        g.caller = Caller(None, is_open)
        sent = request.headers.get("Authorization")
        if is_open or request.url_rule is None or sent is None:
            return
        kind, _, text = sent.partition(" ")
        key = keys.check(text.strip()) if kind.lower() == "bearer" else None
        g.caller = Caller(key, False, has_bad_key=key is None)
        if key is not None:
            add_log_ids(key_id=key.id)
            if (predecessor := key.predecessor(datetime.now(UTC))) is not None:
                g.predecessor = predecessor  # jobs keep it: see `web.request_log.origin`


def guard(app: Flask, settings: Settings) -> None:
    """Refuse what the caller may not do; after `identify`."""
    if not needs_keys(settings):
        return

    @app.before_request
    def check() -> None:
        if request.url_rule is None:
            return
        method = "GET" if request.method in ("HEAD", "OPTIONS") else request.method
        needed = NEEDED.get((method, request.url_rule.rule), ADMINS)
        if request.url_rule.rule.startswith(OPEN_PREFIXES):
            needed = OPEN
        who = caller()
        if who.has_bad_key:
            raise ApiKeyInvalid("This key is not known, has expired, or was revoked. Ask an operator for another one.")
        if needed is OPEN:
            return
        if who.key is None:
            raise ApiKeyMissing("Send an API key as `Authorization: Bearer lk_...`; an operator makes one.")
        if not any(who.key.allows(scope) for scope in needed):
            names = " or ".join(sorted(needed))
            raise ScopeMissing(f"This key has the scope {', '.join(who.key.scopes)}, and needs {names}.", needed=names)


def caller() -> Caller:
    """Return who sent the request that is being answered."""
    found: Caller = g.get("caller", NOBODY)
    return found


def check_visible(record: JobRecord) -> None:
    """Hide a job from all but the key that made it and admins.

    Raises:
        JobNotFound: as if there were none.
    """
    who = caller()
    if who.is_trusted or (who.key is not None and (who.key.is_admin or record.owner == who.key.id)):
        return
    raise JobNotFound(f"No job {record.id!r} of this key.")


def check_link(is_whole: bool) -> None:
    """Let an image be seen by those with a key, and by those with its link, which names its hash.

    A shop's page shows images of hits to customers, whose browsers send no key.

    Raises:
        ApiKeyMissing: if it is neither.
    """
    who = caller()
    if not (who.is_trusted or who.key is not None or is_whole):
        raise ApiKeyMissing("Send an API key, or take the image's link as hits and items name it, with its `v`.")


def is_loopback(bind: str) -> bool:
    """Whether this machine alone can reach what listens there."""
    if bind.startswith("unix:"):
        return True
    host = bind.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
