"""Answers to near-identical photos: a screenshot or a re-compressed copy needs no new search.

In this process's memory alone: the last answers with the embeddings they belong to, compared one by one. That is
exact, costs a quarter of a millisecond and no message to Redis; why it is not shared is in
docs/decisions/0011-micro-batching-and-caches.md.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Any

import numpy as np

from worker.index.vector_index import Vectors

ENTRIES = 1024


@dataclass(frozen=True)
class _Entry:
    scope: Hashable
    vector: bytes
    result: Mapping[str, Any]
    expires_at: float


class SimilarCache:
    """Looks up and keeps answers by embedding; threads share it.

    A scope is what must be equal, beside the photo, for an answer to hold: catalogue version and parameters. An
    engine has a cache of its own, so the release needs no place in it.
    """

    def __init__(self, dim: int, min_cosine: float, ttl_seconds: float, entries: int = ENTRIES) -> None:
        """Args:
        dim: length of an embedding.
        min_cosine: from which two embeddings share an answer; at 1, only equal ones do.
        ttl_seconds: how long an answer is given; 0 means not at all.
        entries: how many answers are kept, the newest ones.
        """
        self._min_cosine = min_cosine
        self._ttl_seconds = ttl_seconds
        self._vectors = np.zeros((entries if ttl_seconds else 0, dim), dtype=np.float32)
        self._entries: list[_Entry] = []
        self._next = 0
        self._slots: dict[Hashable, set[int]] = {}
        self._equal: dict[tuple[Hashable, bytes], int] = {}
        self._lock = Lock()

    def get(self, scope: Hashable, embedding: Vectors) -> Mapping[str, Any] | None:
        """Return the answer to the most similar photo of this scope, if it is similar enough.

        Args:
            scope: see the class.
            embedding: float32 (1, dim), L2 norm 1.
        """
        with self._lock:
            slots = self._slots.get(scope)
            if not slots:
                return None
            # Looked up first: rounding takes the product of a vector with itself below 1, which may be the threshold.
            best = self._equal.get((scope, embedding.tobytes()))
            if best is None and self._min_cosine < 1:
                # vecdot runs in this thread alone; a matrix product would wake BLAS's, which the encoder's run on.
                cosines = np.vecdot(self._vectors[: len(self._entries)], embedding[0])  # (entries,)
                closest = max(slots, key=cosines.__getitem__)
                best = closest if cosines[closest] >= self._min_cosine else None
            if best is None or self._entries[best].expires_at < monotonic():
                return None
            return self._entries[best].result

    def put(self, scope: Hashable, embedding: Vectors, result: Mapping[str, Any]) -> None:
        """Keep an answer, which must not be changed any more, under its photo's embedding, float32 (1, dim)."""
        if not len(self._vectors):
            return
        entry = _Entry(scope, embedding.tobytes(), result, monotonic() + self._ttl_seconds)
        with self._lock:
            slot = self._next
            self._next = (slot + 1) % len(self._vectors)
            if slot < len(self._entries):
                self._drop(slot)
                self._entries[slot] = entry
            else:
                self._entries.append(entry)
            self._vectors[slot] = embedding[0]
            self._slots.setdefault(scope, set()).add(slot)
            self._equal[scope, entry.vector] = slot

    def _drop(self, slot: int) -> None:
        old = self._entries[slot]
        slots = self._slots[old.scope]
        slots.remove(slot)
        if not slots:
            del self._slots[old.scope]
        if self._equal.get((old.scope, old.vector)) == slot:
            del self._equal[old.scope, old.vector]
