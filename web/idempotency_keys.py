"""The idempotency keys that clients have used, and the job that each made.

Key (prefix `lookalike:`):
    idempotency:{digest}  string  JSON [fingerprint of the request, job id, unix time]. The digest is that of the
                                  API key's id and the client's key. Expires after KEPT_SECONDS.
"""

import hashlib
from typing import cast

from redis import Redis

PREFIX = "lookalike:idempotency:"
KEPT_SECONDS = 24 * 3600

# KEYS: the claim. ARGV: what it shall be, seconds to keep it, what it may replace.
_CLAIM = """
local known = redis.call('GET', KEYS[1])
if known and known ~= ARGV[3] then return known end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return false
"""

_WITHDRAW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class IdempotencyKeys:
    """Which request has which key; every step is one command of Redis, so that two requests can't both have one."""

    def __init__(self, redis: Redis) -> None:
        self._claim = redis.register_script(_CLAIM)
        self._withdraw = redis.register_script(_WITHDRAW)

    def claim(self, owner: str | None, key: str, claim: bytes, replaces: bytes = b"") -> bytes | None:
        """Take a key for a request; returns the claim that another request has on it, None if it is taken now.

        Args:
            owner: id of the API key that came with the request; each has idempotency keys of its own.
            key: the client's.
            claim: to be kept.
            replaces: a claim that has led to nothing, to be replaced.
        """
        return cast("bytes | None", self._claim(keys=[_name(owner, key)], args=[claim, KEPT_SECONDS, replaces]))

    def withdraw(self, owner: str | None, key: str, claim: bytes) -> None:
        """Free a key whose request made no job."""
        self._withdraw(keys=[_name(owner, key)], args=[claim])


def _name(owner: str | None, key: str) -> str:
    return PREFIX + hashlib.sha256(f"{owner or ''}:{key}".encode()).hexdigest()
