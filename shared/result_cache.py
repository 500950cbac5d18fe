"""Finished answers, kept in Redis so that a repeated photo costs no task.

Key (prefix `lookalike:`):
    result:{digest}  string  JSON of a SearchResult. The digest covers release, catalogue version, photo and
                             parameters, so a change of any of them misses; there is nothing to invalidate.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, cast

from cachetools import TTLCache
from redis import Redis

PREFIX = "lookalike:result:"


# What an answer depends on, beside what is searched with, the release and the catalogue.
TERMS = ("k", "min_score", "filter", "crop")
TERMS_OF_GROUPS = ("group_by", "per_group")


def asked_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a search's parameters that its answer depends on.

    Those of groups only where there are groups: the keys of all other answers are the same as without these terms.
    """
    names = TERMS if parameters.get("group_by") is None else TERMS + TERMS_OF_GROUPS
    return {name: parameters[name] for name in names}


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
    """Looks up and keeps answers by what was asked. Threads share it."""

    def __init__(self, redis: Redis, ttl_seconds: int, remembered: int = 0) -> None:
        """Args:
        redis: keeps the answers for all processes.
        ttl_seconds: for how long; 0 keeps none.
        remembered: how many answers this process keeps as well, the last ones; of 2 to 5 KB each, as a rule. A key
            never comes to mean another answer, so that they can't be wrong.
        """
        self._redis = redis
        self._ttl_seconds = ttl_seconds
        self._remembered = TTLCache[str, dict[str, Any]](remembered if ttl_seconds else 0, ttl_seconds)
        self._lock = Lock()

    @staticmethod
    def key(release: str, catalogue_version: int, source: str, parameters: Mapping[str, Any]) -> str:
        """Return the key of an answer.

        Args:
            release: id of the release that answers.
            catalogue_version: seq of the catalogue that is searched.
            source: what is searched with: `sha256:...` of a photo's bytes, or `item:...`.
            parameters: as `asked_of` returns them.
        """
        digest = hashlib.sha256(
            canonical({"p": parameters, "r": release, "s": source, "v": catalogue_version}).encode()
        )
        return PREFIX + digest.hexdigest()

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the SearchResult under a key, if it is there. Not to be modified."""
        if not self._ttl_seconds:
            return None
        with self._lock:
            known = self._remembered.get(key)
        if known is not None:
            return known
        body = cast("bytes | None", self._redis.get(key))
        if body is None:
            return None
        result: dict[str, Any] = json.loads(body)
        if self._remembered.maxsize:
            with self._lock:
                self._remembered[key] = result
        return result

    def entries(self, key: str, result: bytes) -> tuple[CacheEntry, ...]:
        """Return what is to be kept of a SearchResult's JSON text: one entry, or none where caches are off."""
        return (CacheEntry(key, result, self._ttl_seconds),) if self._ttl_seconds else ()
