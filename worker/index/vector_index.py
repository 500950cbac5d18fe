"""What every index can do, whatever it is made of."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

NORM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Neighbours:
    """The nearest rows of each query.

    Attributes:
        scores: float32 (n, m), cosine similarity in [-1, 1], descending.
        rows: int64 (n, m), the rows' ids as they were added.
    """

    scores: Vectors
    rows: Rows


class VectorIndex(Protocol):
    """Rows of embeddings under int64 ids. Searches and changes may come from several threads at once."""

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        ...

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def add(self, rows: Rows, vectors: Vectors) -> None:
        """Add rows.

        Args:
            rows: int64 (n,), ids that are not in the index.
            vectors: float32 (n, dim), rows of L2 norm 1. Copied.

        Raises:
            ValueError: if shape, dtype or norm of vectors is not as above.
        """
        ...

    def remove(self, rows: Rows) -> int:
        """Remove rows, int64 (n,), and return how many there were; unknown ids are passed over."""
        ...

    def search(self, queries: Vectors, k: int, allowed: Rows | None = None) -> Neighbours:
        """Find the k most similar rows for each query.

        Args:
            queries: float32 (n, dim), rows of L2 norm 1. Not modified.
            k: wanted neighbours, >= 1. May exceed the number of rows.
            allowed: int64 ids that a filter lets through, in any order; None means all.

        Returns:
            Neighbours with m = min(k, allowed rows that are in the index) columns; no padding.

        Raises:
            ValueError: if shape, dtype or norm of queries is not as above, or k < 1.
        """
        ...


def check_vectors(vectors: Vectors, dim: int) -> None:
    """Refuse vectors that are not float32 (n, dim) with rows of L2 norm 1.

    Raises:
        ValueError: saying what is wrong.
    """
    if vectors.dtype != np.float32 or vectors.ndim != 2 or vectors.shape[1] != dim:
        raise ValueError(f"expected float32 (n, {dim}), got {vectors.dtype} {vectors.shape}")
    if len(vectors) and not np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=NORM_TOLERANCE):
        raise ValueError("every vector must have L2 norm 1")
