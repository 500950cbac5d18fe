"""Embeddings of photos that were searched with, kept in Redis.

Key (prefix `lookalike:`):
    embedding:{encoder id}:{sha256}:{crop}  string  little-endian float32 (dim,)

The engine reads it together with the result cache, and writes it together with the end of the job.
"""

from typing import Any

import numpy as np

from shared.result_cache import canonical
from worker.index.vector_index import Vectors


def embedding_key(encoder_id: str, sha256: str, crop: dict[str, Any] | None) -> str:
    """Return the key of a photo's embedding, or of that of a part of it."""
    return f"lookalike:embedding:{encoder_id}:{sha256}:{canonical(crop) if crop else ''}"


def to_bytes(embedding: Vectors) -> bytes:
    """Return float32 (1, dim) as it is kept."""
    return embedding.astype("<f4", copy=False).tobytes()


def from_bytes(data: bytes) -> Vectors:
    """Return float32 (1, dim); a copy of its own."""
    return np.frombuffer(data, dtype="<f4").astype(np.float32).reshape(1, -1)
