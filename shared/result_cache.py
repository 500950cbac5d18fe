"""Finished answers, kept in Redis so that a repeated photo costs no task.

Key (prefix `lookalike:`):
    result:{digest}  string  JSON of a SearchResult. The digest covers release, catalogue version, photo and
                             parameters, so a change of any of them misses; there is nothing to invalidate.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis

PREFIX = "lookalike:result:"


def canonical(parameters: Mapping[str, Any]) -> str:
    """Return equal texts for equal parameters, whatever the order of their members."""
    return json.dumps(parameters, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class CacheEntry:
    """What is to be kept under a key of Redis for some seconds, at least 1."""

    key: str
    value: bytes
    ttl_seconds: int


class ResultCache:
    """Looks up and keeps answers by what was asked."""

    def __init__(self, redis: Redis, ttl_seconds: int) -> None:
        self._redis = redis
        self._ttl_seconds = ttl_seconds

    @staticmethod
    def key(release: str, catalogue_version: int, source: str, parameters: Mapping[str, Any]) -> str:
        """Return the key of an answer.

        Args:
            release: id of the release that answers.
            catalogue_version: seq of the catalogue that is searched.
            source: what is searched with: `sha256:...` of a photo's bytes, or `item:...`.
            parameters: k, min_score, filter and crop.
        """
        digest = hashlib.sha256(
            canonical({"p": parameters, "r": release, "s": source, "v": catalogue_version}).encode()
        )
        return PREFIX + digest.hexdigest()

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the SearchResult under a key, if it is there."""
        body = cast("bytes | None", self._redis.get(key)) if self._ttl_seconds else None
        return None if body is None else json.loads(body)

    def entries(self, key: str, result: bytes) -> tuple[CacheEntry, ...]:
        """Return what is to be kept of a SearchResult's JSON text: one entry, or none where caches are off."""
        return (CacheEntry(key, result, self._ttl_seconds),) if self._ttl_seconds else ()
