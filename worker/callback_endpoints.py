"""Endpoints that keep failing are left alone for a while, so that callbacks to others don't queue up behind them.

Keys (prefix `lookalike:`):
    endpoint:{digest}    hash  failures: tries in a row that failed; pauses since then. Expires FORGOTTEN_SECONDS after
                               the last failure.
    endpoints:paused     zset  digest -> unix time until which it is paused; not there unless it keeps failing.

An endpoint is a callback URL without its query, of one API key's jobs: nobody pauses somebody else's.
"""

import hashlib
import logging
import time
from dataclasses import dataclass

from redis import Redis

from shared.job_record import JobRecord
from shared.jobs import PAUSED_ENDPOINTS_KEY, PREFIX

log = logging.getLogger(__name__)

FAILURES_IN_A_ROW = 10  # more than the tries of one callback, by default: one job alone pauses nothing
FIRST_PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 3600.0
FORGOTTEN_SECONDS = 4 * 3600  # well beyond the longest pause, so that the pauses of a dead endpoint stay long

# ARGV: digest, now, for how long a try keeps others off, the longest time that is believed.
# Of those who come when a pause is over, the first one tries, and the endpoint stays paused for the others.
_BEGIN = """
local now, ends = tonumber(ARGV[2]), redis.call('ZSCORE', KEYS[1], ARGV[1])
if not ends then return {'0', 0} end
if tonumber(ends) > now and tonumber(ends) <= now + tonumber(ARGV[4]) then return {ends, 0} end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[1])
return {'0', 1}
"""

# KEYS: paused, endpoint. ARGV: digest, now, failures that pause, whether it was the one try after a pause, seconds of
# the first pause, of the longest, and until failures are forgotten.
# Tries that were under way when a pause began don't make it longer.
_FAILED = """
local now = tonumber(ARGV[2])
local failures = redis.call('HINCRBY', KEYS[2], 'failures', 1)
redis.call('EXPIRE', KEYS[2], ARGV[7])
redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, now - tonumber(ARGV[7]))
if failures ~= tonumber(ARGV[3]) and ARGV[4] == '0' then
    return {redis.call('ZSCORE', KEYS[1], ARGV[1]) or '0', 0}
end
local pauses = redis.call('HINCRBY', KEYS[2], 'pauses', 1)
local ends = now + math.min(tonumber(ARGV[5]) * 2 ^ (pauses - 1), tonumber(ARGV[6]))
redis.call('ZADD', KEYS[1], ends, ARGV[1])
return {redis.call('ZSCORE', KEYS[1], ARGV[1]), failures}
"""


@dataclass(frozen=True)
class EndpointTry:
    """Whether a callback may be tried now.

    Attributes:
        paused_until: unix time until which its endpoint is paused; None: it may.
        is_probe: it is the one try that tells whether a pause is to be followed by another.
    """

    paused_until: float | None
    is_probe: bool


class CallbackEndpoints:
    """What is known of those who take callbacks; all workers share it."""

    def __init__(
        self, redis: Redis, failures_in_a_row: int = FAILURES_IN_A_ROW, first_pause_seconds: float = FIRST_PAUSE_SECONDS
    ) -> None:
        """Args:
        redis: keeps it.
        failures_in_a_row: pause an endpoint.
        first_pause_seconds: doubles with each probe that fails, up to LONGEST_PAUSE_SECONDS.
        """
        self._redis = redis
        self._failures_in_a_row = failures_in_a_row
        self._first_pause_seconds = first_pause_seconds
        self._begin = redis.register_script(_BEGIN)
        self._failed = redis.register_script(_FAILED)

    def begin(self, job: JobRecord, try_seconds: float) -> EndpointTry:
        """Ask whether a job's callback may be tried; if so, tell the end by `succeeded` or `failed`.

        Args:
            job: has a callback URL.
            try_seconds: after so long, a probe without an end counts as lost with its worker.
        """
        longest = LONGEST_PAUSE_SECONDS + try_seconds  # what lies further ahead was written by a clock that was wrong
        arguments: list[str | float] = [_digest(job), time.time(), try_seconds, longest]
        ends, is_probe = self._begin(keys=[PAUSED_ENDPOINTS_KEY], args=arguments)
        return EndpointTry(float(ends) or None, bool(is_probe))

    def succeeded(self, job: JobRecord) -> None:
        """Forget all failures of a job's endpoint."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(_key(job))
            pipe.zrem(PAUSED_ENDPOINTS_KEY, _digest(job))
            pipe.execute()

    def failed(self, job: JobRecord, is_probe: bool, host: str) -> float | None:
        """Count a failed try; returns until when the endpoint is paused now, as unix time, or None if it is not.

        Args:
            job: its callback was tried.
            is_probe: as `begin` said.
            host: names the endpoint in the log; the rest of its URL may be secret.
        """
        limits = (self._first_pause_seconds, LONGEST_PAUSE_SECONDS, FORGOTTEN_SECONDS)
        now = time.time()
        arguments: list[str | float] = [_digest(job), now, self._failures_in_a_row, int(is_probe), *limits]
        ends, failures = self._failed(keys=[PAUSED_ENDPOINTS_KEY, _key(job)], args=arguments)
        if failures:
            pause = float(ends) - now
            log.warning("Callbacks to %s are paused for %.0f s: %d tries in a row failed", host, pause, failures)
        return float(ends) or None


def _digest(job: JobRecord) -> str:
    url = (job.callback_url or "").partition("#")[0].partition("?")[0]
    return hashlib.sha256(f"{job.owner or ''} {url}".encode()).hexdigest()


def _key(job: JobRecord) -> str:
    return f"{PREFIX}endpoint:{_digest(job)}"
