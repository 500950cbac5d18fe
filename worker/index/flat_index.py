"""The exact index: FAISS compares each query with every row."""

from pathlib import Path
from threading import Lock
from typing import Any

import faiss
import numpy as np

from worker.index.vector_index import (
    Neighbours,
    Rows,
    Vectors,
    check_search,
    check_vectors,
    in_order,
    membership,
    no_neighbours,
)

# From so many queries on, one matrix product is faster than products one by one: at 8,024 rows of 1280, a query takes
# 1.5 ms alone or among 3, 1.2 ms among 4, 0.7 among 8, 0.4 among 16.
MATRIX_PRODUCT_QUERIES = 4
ALL_THREADS: int = faiss.omp_get_max_threads()
# Below so many multiplications (8 queries in 100,000 rows of 1280), a second thread takes more CPU time than it saves.
MULTIPLICATIONS_OF_A_THREAD = 1_000_000_000
# A matrix product rounds otherwise than products one by one. Measured: 4e-7 at most.
ROUNDING = 1e-6
# Rows asked for beyond k: if the last of them is worse than the k-th by more than rounding, the k are the best.
MARGIN = 8


class FlatIndex:
    """Exact search by inner product, which is the cosine of unit vectors; 4 * dim + 8 bytes a row."""

    kind = "flat"

    def __init__(self, dim: int) -> None:
        self._open(faiss.IndexFlatIP(dim), np.empty(0, np.int64))

    def _open(self, index: Any, rows: Rows) -> None:
        self._index = index
        self._rows = rows  # (n,), the id of the row at each of FAISS's positions
        self._dim: int = index.d
        # FAISS reads without locks and moves memory when it grows: a change must not meet a search. Searches that
        # wait are better searched together (shared_searches.py) than side by side.
        self._lock = Lock()
        faiss.cvar.distance_compute_blas_threshold = MATRIX_PRODUCT_QUERIES * self._dim

    @classmethod
    def mapped(cls, path: Path, rows: Rows) -> "FlatIndex":
        """Open a file that `save` wrote as a view: it is read as far as searches need it, and shared by processes.

        Such an index can't be changed. The file may be removed, but not written to, while it is open.

        Raises:
            ValueError: if the file is not of this kind, or doesn't hold as many rows.
        """
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise ValueError(f"FAISS can't read {path}: {error}") from None
        if not isinstance(index, faiss.IndexFlatIP) or index.ntotal != len(rows):
            raise ValueError(f"{path} is not an index of kind {cls.kind} with {len(rows)} rows")
        opened = cls.__new__(cls)
        opened._open(index, rows)
        return opened

    def save(self, path: Path) -> None:
        """Write the vectors to a file, in the order of `rows`."""
        with self._lock:
            faiss.write_index(self._index, str(path))

    @property
    def is_exact(self) -> bool:
        """Whether it compares with all rows."""
        return True

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._dim

    @property
    def rows(self) -> Rows:
        """All rows, int64 (n,), in the order in which they were added. Not to be modified."""
        return self._rows

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def add(self, rows: Rows, vectors: Vectors) -> None:
        """Add rows; see VectorIndex.add."""
        check_vectors(vectors, self._dim)
        if len(rows) != len(vectors):
            raise ValueError(f"{len(rows)} ids for {len(vectors)} vectors")
        if len(rows):
            with self._lock:
                together = np.concatenate([self._rows, np.asarray(rows, dtype=np.int64)])  # may lack memory: first
                self._index.add(np.ascontiguousarray(vectors))
                self._rows = together

    def remove(self, rows: Rows) -> int:
        """Remove rows; see VectorIndex.remove."""
        if not len(rows):
            return 0
        with self._lock:
            gone = membership(self._rows, rows)
            positions = np.flatnonzero(gone)
            if len(positions):
                self._index.remove_ids(positions)
                self._rows = self._rows[~gone]
        return len(positions)

    def vectors(self, rows: Rows) -> tuple[Rows, Vectors]:
        """Return rows that are here, and their vectors; see ReadableIndex.vectors."""
        with self._lock:
            positions = np.flatnonzero(membership(self._rows, rows))
            return self._rows[positions], self._index.reconstruct_batch(positions)

    def search(self, queries: Vectors, k: int, allowed: Rows | None = None) -> Neighbours:
        """Find the k most similar rows for each query; see ReadableIndex.search."""
        check_search(queries, k, self._dim)
        with self._lock:
            parameters, available = None, len(self._rows)
            if allowed is not None:
                is_allowed = membership(self._rows, allowed)
                bits, available = np.packbits(is_allowed, bitorder="little"), int(is_allowed.sum())
                parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
            if available == 0 or len(queries) == 0:
                return no_neighbours(len(queries))
            # OpenMP keeps this number for each calling thread.
            is_small = self._index.ntotal * queries.size < MULTIPLICATIONS_OF_A_THREAD
            faiss.omp_set_num_threads(1 if is_small else ALL_THREADS)
            k = min(k, available)
            return self._nearest(np.ascontiguousarray(queries), k, k + MARGIN, available, parameters)

    def _nearest(self, queries: Vectors, k: int, depth: int, available: int, parameters: Any) -> Neighbours:
        """Find the k best among the first `depth` > k; look deeper where what was left out might belong to the k."""
        scores, positions = self._index.search(queries, min(depth, available), params=parameters)
        worst_found = scores[:, -1]
        nearest = in_order(self._scores(queries, positions), self._rows[positions], k)
        if depth < available:
            for query in np.flatnonzero(nearest.scores[:, -1] <= worst_found + ROUNDING):
                # Many rows are alike here, such as one image that many items show.
                deeper = self._nearest(queries[query : query + 1], k, depth * 4, available, parameters)
                nearest.scores[query], nearest.rows[query] = deeper.scores[0], deeper.rows[0]
        return nearest

    def _scores(self, queries: Vectors, positions: Rows) -> Vectors:
        """Return float32 (n, m), computed pair by pair, so that they are the same however a query was searched."""
        scores = np.empty(positions.shape, np.float32)
        pointers = [faiss.swig_ptr(array) for array in (scores, queries, positions)]
        faiss.fvec_inner_products_by_idx(
            pointers[0], pointers[1], self._index.get_xb(), pointers[2], self._dim, *positions.shape
        )
        return np.clip(scores, -1.0, 1.0)
