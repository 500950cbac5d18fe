"""What lies before a graph or lists of FAISS: linear transforms, such as PCA192's, as one matrix.

FAISS projects by a matrix product, whose rounding depends on how many queries there are and which is slow for one; so
queries are projected here, number by number.
"""

from typing import Any

import faiss
import numpy as np

from worker.index.faiss_calls import searched
from worker.index.vector_index import Vectors

LARGEST = 127.0  # in a byte


class Projection:
    """Makes of a query what codes were made of. Threads share it."""

    def __init__(self, index: Any) -> None:
        """Args:
        index: of FAISS, trained.

        Raises:
            ValueError: if a transform is not linear.
        """
        matrix, self._offset = _composed(faiss.downcast_index(index))
        self._matrix = None if matrix is None else _in_16_bits(matrix)
        lengths = np.ones(1) if matrix is None else np.linalg.norm(matrix, axis=1)
        # Rows of a rotation are of one norm, by which projected distances are longer. Those of whitening are not.
        self.is_rotation = bool(np.allclose(lengths, lengths[0], rtol=1e-3))
        self.scale = float(lengths[0]) if self.is_rotation else 1.0

    @property
    def is_any(self) -> bool:
        """Whether there are transforms."""
        return self._matrix is not None

    def of(self, query: Vectors) -> Vectors:
        """Return a query, float32 (1, dim), as codes are made, float32 (1, dim of the codes)."""
        if self._matrix is None:
            return query
        found, places = searched(self._matrix, query, self._matrix.ntotal)
        projected: Vectors = np.empty((1, len(found)), np.float32)
        projected[0, places] = found
        return projected if self._offset is None else projected + self._offset


def fill_bytes(index: Any, sample: Vectors) -> None:
    """Scale what projects before an index, so that the sample's numbers fill a byte.

    Args:
        index: of FAISS, trained, empty.
        sample: float32 (m, dim), unit rows.

    Raises:
        ValueError: if nothing lies before it.
    """
    before = transforms(index)
    if not before:
        raise ValueError(f"Codes of bytes need numbers that are projected first, as by PCAR{max(1, index.d // 2)}.")
    last = before[-1]
    scale = LARGEST / float(np.abs(transformed(index, sample)).max())
    for numbers in (last.A, last.b):
        faiss.copy_array_to_vector(faiss.vector_to_array(numbers) * np.float32(scale), numbers)


def transforms(index: Any) -> list[Any]:
    """Return what lies before the graph or the lists."""
    if not isinstance(index, faiss.IndexPreTransform):
        return []
    return [faiss.downcast_VectorTransform(index.chain.at(number)) for number in range(index.chain.size())]


def transformed(index: Any, vectors: Vectors) -> Vectors:
    """Return vectors, float32 (m, dim), as what lies before the graph or the lists makes them."""
    for transform in transforms(index):
        vectors = transform.apply(np.ascontiguousarray(vectors))
    return vectors


def _composed(index: Any) -> tuple[Vectors | None, Vectors | None]:
    """Return one matrix (out, in) and offset (out,) for all transforms before an index; None where there is none."""
    matrix, offset = None, np.zeros(index.d)
    for transform in transforms(index):
        if not isinstance(transform, faiss.LinearTransform):
            raise ValueError(f"{type(transform).__name__} is not linear; use PCA, PCAR, RR or OPQ")
        step = faiss.vector_to_array(transform.A).reshape(transform.d_out, transform.d_in).astype(np.float64)
        matrix, offset = step if matrix is None else step @ matrix, step @ offset
        if transform.have_bias:
            offset = offset + faiss.vector_to_array(transform.b)
    if matrix is None:
        return None, None
    return np.ascontiguousarray(matrix, dtype=np.float32), offset.astype(np.float32) if offset.any() else None


def _in_16_bits(matrix: Vectors) -> Any:
    """Return an index whose rows are a matrix's: searched for all of them, it multiplies.

    It is read for every query, between graph and vectors that take the cache of the core as well: in bfloat16,
    192 x 2048 numbers take a third of the time of float32. Rounding it changes a projected number of a unit vector by
    about 0.00003, a thirtieth of what rounding its codes to 8 bits does.
    """
    index = faiss.IndexScalarQuantizer(matrix.shape[1], faiss.ScalarQuantizer.QT_bf16, faiss.METRIC_INNER_PRODUCT)
    index.add(matrix)
    return index
