"""Rate limits: how many requests a client may send in a minute, by kind of work.

Key (prefix `lookalike:`):
    rate:{kind}:{client}  string  requests of the window that its first request began. Expires with the window.

The headers are those of the IETF draft "RateLimit header fields for HTTP".
"""

import logging
import math
import time
from enum import StrEnum
from typing import NamedTuple

from flask import Flask, Response, g, request
from redis import Redis
from redis.exceptions import RedisError

from shared.errors import RateLimited
from shared.settings import Settings
from web.clients import client_name, limits_clients

log = logging.getLogger(__name__)

PREFIX = "lookalike:rate:"
WINDOW_SECONDS = 60
# While Redis is away nothing is counted, and each try to would hold its request up.
AWAY_SECONDS = 2
# Health checks, pages and files are not counted: they ask Redis for nothing.
COUNTED_PATHS = "/v1/"

_COUNT = """
local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return {count, redis.call('PTTL', KEYS[1])}
"""


class Kind(StrEnum):
    """Kinds of work that are counted apart."""

    SEARCHES = "searches"
    BULK_JOBS = "bulk-jobs"
    REQUESTS = "requests"


# What is not named here counts as a request.
KINDS: dict[tuple[str, str], Kind] = {
    ("POST", "/v1/searches"): Kind.SEARCHES,
    ("POST", "/v1/searches/batch"): Kind.BULK_JOBS,
    ("POST", "/v1/imports"): Kind.BULK_JOBS,
    ("POST", "/v1/releases"): Kind.BULK_JOBS,
}


class Window(NamedTuple):
    """What a client has used of its minute."""

    kind: Kind
    most: int
    used: int
    seconds_left: int


class RateLimits:
    """Counts requests, all web processes together; one script call for each. Threads share it."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._count = redis.register_script(_COUNT)
        self._most = {
            Kind.SEARCHES: settings.client_max_searches_per_minute,
            Kind.BULK_JOBS: settings.client_max_bulk_jobs_per_minute,
            Kind.REQUESTS: settings.client_max_requests_per_minute,
        }
        self._away_until = 0.0

    def count(self, kind: Kind, client: str) -> Window | None:
        """Count one request.

        Returns:
            The client's window with it, or None where there is no limit, or no Redis to count with: what needs Redis
            fails by itself then, and all else may go on.
        """
        most = self._most[kind]
        if not most or time.monotonic() < self._away_until:
            return None
        try:
            used, milliseconds = self._count(keys=[f"{PREFIX}{kind}:{client}"], args=[WINDOW_SECONDS * 1000])
        except RedisError as error:
            log.warning("Requests are not counted while Redis fails: %s", error)
            self._away_until = time.monotonic() + AWAY_SECONDS
            return None
        return Window(kind, most, used, max(1, math.ceil(milliseconds / 1000)))


def limit_rates(app: Flask, limits: RateLimits, settings: Settings) -> None:
    """Count each request of a client that is limited, and refuse what is too much.

    After `identify`, and before `guard`: who tries keys counts too.
    """
    if not limits_clients(settings):
        return

    @app.before_request
    def count() -> None:
        rule = request.url_rule
        if rule is None or not rule.rule.startswith(COUNTED_PATHS):
            return
        g.window = limits.count(KINDS.get((request.method, rule.rule), Kind.REQUESTS), client_name())
        if g.window is not None and g.window.used > g.window.most:
            raise _refusal(g.window)

    @app.after_request
    def tell(response: Response) -> Response:
        window: Window | None = g.get("window")
        if window is not None:
            remaining = max(0, window.most - window.used)
            response.headers["RateLimit-Policy"] = f'"{window.kind}";q={window.most};w={WINDOW_SECONDS}'
            response.headers["RateLimit"] = f'"{window.kind}";r={remaining};t={window.seconds_left}'
        return response


def _refusal(window: Window) -> RateLimited:
    return RateLimited(
        f"This client may send {window.most:,} {window.kind} in {WINDOW_SECONDS} seconds, and has. "
        f"Come again in {window.seconds_left} seconds.",
        limit=window.kind.value,
        limit_per_minute=window.most,
        retry_after_seconds=window.seconds_left,
    )
