"""What people would pick instead: hnswlib and usearch, on the same vectors, with their own ways to be thorough."""

from time import perf_counter

import numpy as np

from benchmarks.index.latency import Engine
from worker.index.vector_index import Rows, Vectors

LINKS, CONSTRUCTION = 32, 128
EFFORTS = (16, 24, 32, 48, 64, 96, 128, 192)
THREADS = 2


class Hnswlib:
    """hnswlib, float32."""

    name = "hnswlib"

    def __init__(self, vectors: Vectors) -> None:
        import hnswlib

        start = perf_counter()
        self._index = hnswlib.Index("ip", vectors.shape[1])
        self._index.init_index(len(vectors), M=LINKS, ef_construction=CONSTRUCTION)
        self._index.add_items(vectors, num_threads=THREADS)
        self._index.set_num_threads(1)
        self.build_seconds = perf_counter() - start

    def at(self, effort: int) -> Engine:
        """Return the engine with one of EFFORTS as ef, good until the next one is asked for."""
        self._index.set_ef(effort)
        return self._search

    def _search(self, query: Vectors) -> Rows:
        rows: Rows = self._index.knn_query(query, k=10)[0][0].astype(np.int64)
        return rows


class Usearch:
    """usearch, in one of its number formats."""

    def __init__(self, vectors: Vectors, dtype: str) -> None:
        from usearch.index import Index

        self.name = f"usearch {dtype}"
        start = perf_counter()
        self._index = Index(
            ndim=vectors.shape[1], metric="ip", dtype=dtype, connectivity=LINKS, expansion_add=CONSTRUCTION
        )
        self._index.add(np.arange(len(vectors)), vectors, threads=THREADS)
        self.build_seconds = perf_counter() - start

    def at(self, effort: int) -> Engine:
        """Return the engine with one of EFFORTS as expansion, good until the next one is asked for."""
        self._index.expansion_search = effort
        return self._search

    def _search(self, query: Vectors) -> Rows:
        rows: Rows = self._index.search(query[0], 10, threads=1).keys.astype(np.int64)
        return rows
