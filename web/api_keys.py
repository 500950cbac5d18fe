"""API keys: who may call, and what for.

A key is `lk_{id}_{secret}`: 12 hex digits and 32 random bytes. It is shown once, when it is made; the database keeps
the SHA-256 of its secret, which is as good as a slow hash where nobody can guess what was hashed.
"""

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from threading import Lock

from cachetools import TTLCache
from sqlalchemy import Engine, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.errors import ApiKeyNotFound
from shared.tables import ApiKeyRow

log = logging.getLogger(__name__)

# For so long a process goes on with what it read of a key; a revoked one is refused everywhere by then.
REMEMBERED_SECONDS = 5
REMEMBERED_KEYS = 10_000
# How exact `last_used_at` is; each use of its own would be a write of the database.
USE_NOTED_SECONDS = 60

_KEY = re.compile(r"lk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


class Scope(StrEnum):
    """What a key is good for."""

    SEARCH = "search"
    CATALOGUE = "catalogue"
    ADMIN = "admin"


@dataclass(frozen=True)
class ApiKey:
    """A key as it is kept."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    replaces: str | None = None
    overlap_ends_at: datetime | None = None

    def predecessor(self, now: datetime) -> str | None:
        """Return the id of the key that this one replaces, while both are good."""
        return self.replaces if self.overlap_ends_at is not None and now < self.overlap_ends_at else None

    def allows(self, scope: Scope) -> bool:
        """Whether it is good for something; an admin's is good for everything."""
        return scope in self.scopes or self.is_admin

    @property
    def is_admin(self) -> bool:
        """Whether it is good for everything, and sees everybody's jobs."""
        return Scope.ADMIN in self.scopes

    def is_usable(self, now: datetime) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class ApiKeys:
    """Makes, checks and ends keys. Threads share it."""

    def __init__(self, engine: Engine) -> None:
        """Args:
        engine: of the catalogue database.
        """
        self._engine = engine
        self._known = TTLCache[str, ApiKey](REMEMBERED_KEYS, REMEMBERED_SECONDS)  # by the SHA-256 of the whole key
        self._noted: dict[str, datetime] = {}
        self._lock = Lock()

    def create(
        self,
        name: str,
        scopes: Sequence[Scope],
        expires_at: datetime | None = None,
        replaces: str | None = None,
        overlap_ends_at: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key.

        Args:
            name: for people.
            scopes: what it is good for.
            expires_at: None: never.
            replaces: id of the key that it takes the place of.
            overlap_ends_at: until when that one is good as well.

        Returns:
            The key as it is kept, and the text that its owner sends, which can't be had again.
        """
        secret = secrets.token_urlsafe(32)
        row = ApiKeyRow(
            id=secrets.token_hex(6),
            name=name,
            scopes=[scope.value for scope in scopes],
            secret_sha256=_digest(secret),
            created_at=datetime.now(UTC),
            expires_at=expires_at,
            replaces=replaces,
            overlap_ends_at=overlap_ends_at,
        )
        with Session(self._engine) as session, session.begin():
            session.add(row)
            session.flush()
            return _kept(row), f"lk_{row.id}_{secret}"

    def rotate(self, key_id: str, overlap: timedelta) -> tuple[ApiKey, str]:
        """Make a key of the same name and scopes, and let the old one expire after a while, in which both are good.

        For so long the callbacks of the new one's jobs are signed with the secrets of both.

        Raises:
            ApiKeyNotFound: if there is no such key, or it is not usable any more.
        """
        now = datetime.now(UTC)
        with Session(self._engine) as session, session.begin():
            old = session.get(ApiKeyRow, key_id, with_for_update=True)
            if old is None or not _kept(old).is_usable(now):
                raise ApiKeyNotFound(f"There is no usable key {key_id!r}; GET /v1/keys lists all.")
            expires_at, name, scopes = old.expires_at, old.name, [Scope(scope) for scope in old.scopes]
            old.expires_at = overlap_ends_at = min(now + overlap, expires_at or datetime.max.replace(tzinfo=UTC))
        return self.create(name, scopes, expires_at, key_id, overlap_ends_at)

    def revoke(self, key_id: str) -> ApiKey:
        """End a key; a second time it changes nothing.

        Raises:
            ApiKeyNotFound: if there is no such key.
        """
        with Session(self._engine) as session, session.begin():
            row = session.get(ApiKeyRow, key_id, with_for_update=True)
            if row is None:
                raise ApiKeyNotFound(f"There is no key {key_id!r}; GET /v1/keys lists all.")
            row.revoked_at = row.revoked_at or datetime.now(UTC)
            revoked = _kept(row)
            successors = update(ApiKeyRow).where(ApiKeyRow.replaces == key_id)
            session.execute(successors.values(overlap_ends_at=row.revoked_at))  # from now on its secret signs nothing
        with self._lock:
            self._known.clear()
        return revoked

    def all(self) -> list[ApiKey]:
        """Return all keys, the newest first."""
        with Session(self._engine) as session:
            rows = session.scalars(select(ApiKeyRow).order_by(ApiKeyRow.created_at.desc(), ApiKeyRow.id))
            return [_kept(row) for row in rows]

    def has_admin(self) -> bool:
        """Whether somebody can manage keys over the API."""
        now = datetime.now(UTC)
        return any(key.is_admin and key.is_usable(now) for key in self.all())

    def check(self, text: str) -> ApiKey | None:
        """Return the key that a client sent, or None if it is no usable one."""
        match = _KEY.fullmatch(text)
        if match is None:
            return None
        now, name = datetime.now(UTC), _digest(text)
        with self._lock:
            key = self._known.get(name)
        if key is None:
            with Session(self._engine) as session:
                row = session.get(ApiKeyRow, match[1])
            # Compared even where there is no such key: how long an answer takes tells nothing.
            is_right = hmac.compare_digest(_digest(match[2]), row.secret_sha256 if row else "")
            if row is None or not is_right:
                return None
            key = _kept(row)
            with self._lock:
                self._known[name] = key
        if not key.is_usable(now):
            return None
        self._note_use(key, now)
        return key

    def _note_use(self, key: ApiKey, now: datetime) -> None:
        with self._lock:
            noted = self._noted.get(key.id, key.last_used_at)
            if noted is not None and (now - noted).total_seconds() < USE_NOTED_SECONDS:
                return
            self._noted[key.id] = now
        try:
            with self._engine.begin() as connection:
                connection.execute(update(ApiKeyRow).where(ApiKeyRow.id == key.id).values(last_used_at=now))
        except SQLAlchemyError as error:  # the request itself may well go without the database
            log.warning("The use of key %s could not be noted: %s", key.id, error)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _kept(row: ApiKeyRow) -> ApiKey:
    scopes = tuple(Scope(scope) for scope in row.scopes)
    moments = (row.created_at, row.expires_at, row.revoked_at, row.last_used_at)
    return ApiKey(row.id, row.name, scopes, *moments, row.replaces, row.overlap_ends_at)
