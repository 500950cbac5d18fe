"""The exact index: FAISS compares each query with every row."""

from threading import Lock

import faiss
import numpy as np

from worker.index.vector_index import Neighbours, Rows, Vectors, check_vectors


class FlatIndex:
    """Exact search by inner product, which is the cosine of unit vectors; 4 * dim bytes a row."""

    kind = "flat"

    def __init__(self, dim: int) -> None:
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))
        self._dim = dim
        # FAISS reads without locks and moves memory when it grows: a change must not meet a search. A search of
        # ten thousand rows takes a few milliseconds on all cores, so taking turns costs no throughput.
        self._lock = Lock()

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._dim

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._index.ntotal)

    def add(self, rows: Rows, vectors: Vectors) -> None:
        """Add rows; see VectorIndex.add."""
        check_vectors(vectors, self._dim)
        if len(rows) != len(vectors):
            raise ValueError(f"{len(rows)} ids for {len(vectors)} vectors")
        if len(rows):
            with self._lock:
                self._index.add_with_ids(np.ascontiguousarray(vectors), np.ascontiguousarray(rows, dtype=np.int64))

    def remove(self, rows: Rows) -> int:
        """Remove rows; see VectorIndex.remove."""
        if not len(rows):
            return 0
        with self._lock:
            return int(self._index.remove_ids(np.ascontiguousarray(rows, dtype=np.int64)))

    def search(self, queries: Vectors, k: int, allowed: Rows | None = None) -> Neighbours:
        """Find the k most similar rows for each query; see VectorIndex.search."""
        check_vectors(queries, self._dim)
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        parameters = None
        bits = None if allowed is None else _bitmap(allowed)
        if bits is not None:
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
        with self._lock:
            depth = min(k, len(self))
            if depth == 0 or len(queries) == 0:
                return _nothing(len(queries))
            scores, rows = self._index.search(np.ascontiguousarray(queries), depth, params=parameters)
        # With a selector FAISS pads with -1; every query sees the same rows, so all are padded alike.
        found = int((rows[0] >= 0).sum())
        return Neighbours(np.clip(scores[:, :found], -1.0, 1.0), rows[:, :found])


def _bitmap(rows: Rows) -> np.ndarray:
    """Return uint8 (b,), bit r of which tells whether row r is in `rows`; little-endian bits."""
    flags = np.zeros(int(rows.max(initial=0)) + 1, dtype=bool)
    flags[rows] = True
    return np.packbits(flags, bitorder="little")


def _nothing(queries: int) -> Neighbours:
    return Neighbours(np.empty((queries, 0), np.float32), np.empty((queries, 0), np.int64))
