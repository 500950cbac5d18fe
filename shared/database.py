"""Connections to the catalogue database: SQLite (WAL) or PostgreSQL."""

import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url

POOL_SECONDS = 5
LOCK_SECONDS = 30
# How soon a server that no packet reaches any more is given up; without these, after minutes.
_POSTGRESQL_LIMITS = {
    "connect_timeout": 3,
    "tcp_user_timeout": 5000,  # milliseconds that what was sent may stay unconfirmed
    "keepalives_idle": 10,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}


def connect_database(url: str) -> Engine:
    """Create the engine for a database URL; nothing is opened yet. Its errors name statements without their values.

    SQLite runs in write-ahead mode, so that readers never wait for a writer, and with full synchronisation, so
    that what was committed survives a power cut.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
        return create_engine(
            parsed,
            connect_args=_POSTGRESQL_LIMITS,
            pool_pre_ping=True,
            pool_size=10,
            max_overflow=30,
            pool_timeout=POOL_SECONDS,
            hide_parameters=True,
        )
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        parsed,
        connect_args={"timeout": LOCK_SECONDS},
        pool_size=10,
        max_overflow=60,
        pool_timeout=POOL_SECONDS,
        hide_parameters=True,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    _enter_write_ahead_mode(cursor)
    for pragma in ("synchronous = FULL", "foreign_keys = ON", f"busy_timeout = {LOCK_SECONDS * 1000}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _enter_write_ahead_mode(cursor: sqlite3.Cursor) -> None:
    """Switch the file, unless it is so already; of all locks, SQLite doesn't wait by itself for this one."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
