"""Embeddings of photos that were searched with, kept in Redis.

Key (prefix `lookalike:`):
    embedding:{encoder id}:{sha256}:{crop}  string  little-endian float32 (dim,)
"""

from typing import Any, cast

import numpy as np
from redis import Redis

from shared.result_cache import canonical
from worker.index.vector_index import Vectors


class EmbeddingCache:
    """From the hash of a photo, and the crop, to its embedding; apart for each encoder."""

    def __init__(self, redis: Redis, encoder_id: str, ttl_seconds: int) -> None:
        self._redis = redis
        self._encoder_id = encoder_id
        self._ttl_seconds = ttl_seconds

    def _key(self, sha256: str, crop: dict[str, Any] | None) -> str:
        return f"lookalike:embedding:{self._encoder_id}:{sha256}:{canonical(crop) if crop else ''}"

    def get(self, sha256: str, crop: dict[str, Any] | None) -> Vectors | None:
        """Return float32 (1, dim), or None if the photo is not known."""
        data = cast("bytes | None", self._redis.get(self._key(sha256, crop))) if self._ttl_seconds else None
        return None if data is None else np.frombuffer(data, dtype="<f4").astype(np.float32).reshape(1, -1)

    def put(self, sha256: str, crop: dict[str, Any] | None, embedding: Vectors) -> None:
        """Keep float32 (1, dim) for the time that the setting gives."""
        if self._ttl_seconds:
            self._redis.set(self._key(sha256, crop), embedding.astype("<f4").tobytes(), ex=self._ttl_seconds)
