"""FAISS's own methods without what its Python classes do beside them: a quarter of a search through a graph."""

from typing import Any

import faiss
import numpy as np

from worker.index.vector_index import Rows, Vectors


def searched(index: Any, query: Vectors, count: int, parameters: Any = None) -> tuple[Vectors, Rows]:
    """Search with one query.

    Args:
        index: of FAISS.
        query: float32, as many numbers as the index has, contiguous.
        count: wanted rows.
        parameters: FAISS's SearchParameters, of the index's kind.

    Returns:
        Distances or products, float32 (count,), and positions, int64 (count,), the best first; -1 for positions that
        there are not.
    """
    distances, positions = np.empty(count, np.float32), np.empty(count, np.int64)
    index.search_c(1, faiss.swig_ptr(query), count, faiss.swig_ptr(distances), faiss.swig_ptr(positions), parameters)
    return distances, positions


def add_codes(index: Any, codes: np.ndarray) -> None:
    """Add codes, uint8 (n, size), contiguous, to a FAISS index."""
    index.add_sa_codes_c(len(codes), faiss.swig_ptr(codes), None)
