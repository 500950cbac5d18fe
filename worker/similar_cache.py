"""Answers to near-identical photos: a screenshot or a re-compressed copy needs no new search.

Candidates are found by random-hyperplane hashing (Charikar, "Similarity estimation techniques from rounding
algorithms", STOC 2002): vectors at an angle t agree in one bit with probability 1 - t / pi. At cosine 0.995, 16 bits
agree with probability 0.59, so one of 4 tables has the candidate with probability 0.97. The bucket alone proves
nothing: a candidate counts only if the cosine with its stored vector reaches the threshold.

Keys (prefix `lookalike:`), all expiring together:
    similar:{scope}:{table}:{code}  list  ids of entries, the newest first, at most CANDIDATES
    similar:entry:{id}              hash  vector (float32 bytes), result (JSON)
The scope covers release, catalogue version and parameters.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
from redis import Redis

from shared.result_cache import canonical
from worker.index.vector_index import Vectors

TABLES = 4
BITS = 16
CANDIDATES = 8
PREFIX = "lookalike:similar:"


class SimilarCache:
    """Looks up and keeps answers by embedding."""

    def __init__(self, redis: Redis, dim: int, min_cosine: float, ttl_seconds: int) -> None:
        self._redis = redis
        self._min_cosine = min_cosine
        self._ttl_seconds = ttl_seconds
        # The same planes in every process, so that workers share what they know.
        self._planes = np.random.default_rng(20260101).standard_normal((dim, TABLES * BITS)).astype(np.float32)

    @staticmethod
    def scope(release: str, catalogue_version: int, parameters: Mapping[str, Any]) -> str:
        """Return what must be equal, beside the photo, for an answer to hold."""
        text = canonical({"p": parameters, "r": release, "v": catalogue_version})
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _buckets(self, scope: str, embedding: Vectors) -> list[str]:
        signs = (embedding @ self._planes > 0).reshape(TABLES, BITS)  # (tables, bits)
        codes = np.packbits(signs, axis=1)  # (tables, bits / 8)
        return [f"{PREFIX}{scope}:{table}:{code.tobytes().hex()}" for table, code in enumerate(codes)]

    def get(self, scope: str, embedding: Vectors) -> dict[str, Any] | None:
        """Return the answer to the most similar photo of this scope, if it is similar enough.

        Args:
            scope: as `scope` gives it.
            embedding: float32 (1, dim), L2 norm 1.
        """
        if not self._ttl_seconds:
            return None
        with self._redis.pipeline(transaction=False) as pipe:
            for bucket in self._buckets(scope, embedding):
                pipe.lrange(bucket, 0, CANDIDATES - 1)
            candidates = list(dict.fromkeys(entry.decode() for entries in pipe.execute() for entry in entries))
        if not candidates:
            return None
        with self._redis.pipeline(transaction=False) as pipe:
            for entry in candidates:
                pipe.hget(f"{PREFIX}entry:{entry}", "vector")
            vectors = pipe.execute()
        own = embedding.astype("<f4").tobytes()
        cosines = {
            # Rounding takes the product of a vector with itself below 1, which may be the threshold.
            entry: 1.0 if vector == own else float(embedding[0] @ np.frombuffer(vector, dtype="<f4"))
            for entry, vector in zip(candidates, vectors, strict=True)
            if vector is not None
        }
        best = max(cosines, key=lambda entry: cosines[entry], default=None)
        if best is None or cosines[best] < self._min_cosine:
            return None
        result = self._redis.hget(f"{PREFIX}entry:{best}", "result")
        return None if result is None else json.loads(result)

    def put(self, scope: str, embedding: Vectors, result: Mapping[str, Any]) -> None:
        """Keep an answer under its photo's embedding, float32 (1, dim)."""
        if not self._ttl_seconds:
            return
        entry = uuid.uuid4().hex
        with self._redis.pipeline(transaction=False) as pipe:
            vector = embedding.astype("<f4").tobytes()
            pipe.hset(f"{PREFIX}entry:{entry}", mapping={"vector": vector, "result": json.dumps(result)})
            pipe.expire(f"{PREFIX}entry:{entry}", self._ttl_seconds)
            for bucket in self._buckets(scope, embedding):
                pipe.lpush(bucket, entry)
                pipe.ltrim(bucket, 0, CANDIDATES - 1)
                pipe.expire(bucket, self._ttl_seconds)
            pipe.execute()
