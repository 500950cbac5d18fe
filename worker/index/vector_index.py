"""What every index can do, whatever it is made of."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint8]
Page = tuple[Rows, Hashes, Vectors]
"""Rows int64 (m,), SHA-256 of their images uint8 (m, 32), vectors float32 (m, dim)."""

NORM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Neighbours:
    """The nearest rows of each query.

    Attributes:
        scores: float32 (n, m), cosine similarity in [-1, 1], descending.
        rows: int64 (n, m), the rows' ids as they were added; those of equal scores ascend.
    """

    scores: Vectors
    rows: Rows


class ReadableIndex(Protocol):
    """Rows of embeddings under int64 ids, to be searched. Searches may come from several threads at once."""

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        ...

    @property
    def is_exact(self) -> bool:
        """Whether a search compares with all rows. Then searches that wait are better searched together."""
        ...

    @property
    def rows(self) -> Rows:
        """All rows, int64 (n,), in no order."""
        ...

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def search(self, queries: Vectors, k: int, allowed: Rows | None = None) -> Neighbours:
        """Find the k most similar rows for each query.

        What a query finds does not depend on the others that it is searched with.

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

    def vectors(self, rows: Rows) -> tuple[Rows, Vectors]:
        """Return those of some rows that are in the index, int64 (m,), and their vectors, float32 (m, dim)."""
        ...


class VectorIndex(ReadableIndex, Protocol):
    """An index that can be changed. Searches and changes may come from several threads at once."""

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


def check_vectors(vectors: Vectors, dim: int) -> None:
    """Refuse vectors that are not float32 (n, dim) with rows of L2 norm 1.

    Raises:
        ValueError: saying what is wrong.
    """
    if vectors.dtype != np.float32 or vectors.ndim != 2 or vectors.shape[1] != dim:
        raise ValueError(f"expected float32 (n, {dim}), got {vectors.dtype} {vectors.shape}")
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    # Asked this way round, a NaN is refused as well.
    if not (np.abs(norms - 1.0) <= NORM_TOLERANCE).all():
        raise ValueError("every vector must have L2 norm 1")


def check_search(queries: Vectors, k: int, dim: int) -> None:
    """Refuse what `ReadableIndex.search` refuses.

    Raises:
        ValueError: saying what is wrong.
    """
    check_vectors(queries, dim)
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")


def membership(rows: Rows, chosen: Rows) -> np.ndarray:
    """Return bool (n,): which of `rows` are in `chosen`. Ids are >= 0; O(largest id), without sorting."""
    flags = np.zeros(int(max(rows.max(initial=0), chosen.max(initial=0))) + 1, dtype=bool)
    flags[chosen] = True
    return flags[rows]


def no_neighbours(queries: int) -> Neighbours:
    """Return the answer to so many queries where nothing was found."""
    return Neighbours(np.empty((queries, 0), np.float32), np.empty((queries, 0), np.int64))


def in_order(scores: Vectors, rows: Rows, k: int) -> Neighbours:
    """Return the best k of each query's candidates, (n, m) both, by descending score and ascending row."""
    order = np.lexsort((rows, -scores), axis=-1)[:, :k]
    return Neighbours(np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1))
