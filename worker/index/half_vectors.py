"""Vectors in half precision on disk, mapped: for exact scores of a few rows, without memory of their own.

Half precision keeps 11 bits of each number. A cosine changes by 1.1e-4 at most, 8e-6 on average, measured with the 1280
numbers of the default encoder.
"""

from pathlib import Path
from threading import local
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from worker.index.faiss_calls import add_codes, searched
from worker.index.vector_index import Rows, Vectors

Halves = npt.NDArray[np.float16]
COMPARED_ROWS = 64  # at once: 256 KB of 2048 numbers, which stay in the core's own cache


class HalfVectors:
    """float16 (n, dim), in a file or in memory; never changed."""

    def __init__(self, halves: Halves) -> None:
        self._halves = np.asarray(halves)  # a view of a mapped file, without the overhead of its class
        self._of_thread = local()
        self._quantizer = faiss.ScalarQuantizer(halves.shape[1], faiss.ScalarQuantizer.QT_fp16)

    @classmethod
    def mapped(cls, path: Path) -> "HalfVectors":
        """Open a .npy file of float16 (n, dim) as a view.

        Raises:
            ValueError: if it is no such file.
        """
        halves = np.load(path, mmap_mode="r")
        if halves.dtype != np.float16 or halves.ndim != 2:
            raise ValueError(f"{path} holds {halves.dtype} {halves.shape}, not float16 (n, dim)")
        return cls(halves)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._halves)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._halves.shape[1])

    def first(self, count: int) -> "HalfVectors":
        """Return the first rows, as a view."""
        return HalfVectors(self._halves[:count])

    def at(self, positions: Rows | slice) -> Vectors:
        """Return the vectors at some positions, float32 (m, dim)."""
        halves = np.ascontiguousarray(self._halves[positions])
        vectors: Vectors = self._quantizer.decode(halves.view(np.uint8))
        return vectors

    def scores(self, query: Vectors, positions: Rows) -> Vectors:
        """Return the cosine of a query, float32 (dim,), with the rows at some positions, float32 (m,).

        Pair by pair, so that a score does not depend on what else is asked for.
        """
        scores = np.empty(len(positions), np.float32)
        index = self._own_index()
        for start in range(0, len(positions), COMPARED_ROWS):
            some = positions[start : start + COMPARED_ROWS]
            index.reset()
            add_codes(index, self._halves[some].view(np.uint8))
            found, places = searched(index, query, len(some))
            scores[start + places] = found
        return np.minimum(np.maximum(scores, -1.0, out=scores), 1.0, out=scores)

    def _own_index(self) -> Any:
        """Return a FAISS index of this thread, to be filled with a few rows.

        FAISS compares with half precision as it is: 0.8 µs a row of 2048 numbers, where turning it to single precision
        first takes 2.
        """
        index = getattr(self._of_thread, "index", None)
        if index is None:
            kind = faiss.ScalarQuantizer.QT_fp16
            index = self._of_thread.index = faiss.IndexScalarQuantizer(self.dim, kind, faiss.METRIC_INNER_PRODUCT)
        return index


class HalfVectorsWriter:
    """Writes a file that `HalfVectors.mapped` opens, page by page; how many there will be need not be known."""

    # A .npy file tells its shape in its header, which is padded to this size and written at the end.
    _HEADER_BYTES = 128

    def __init__(self, path: Path, dim: int) -> None:
        self._dim = dim
        self._count = 0
        self._file = path.open("wb")
        self._file.write(bytes(self._HEADER_BYTES))

    def __enter__(self) -> "HalfVectorsWriter":
        return self

    def __exit__(self, *_: object) -> None:
        header = f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({self._count}, {self._dim}), }}"
        start = b"\x93NUMPY\x01\x00" + (self._HEADER_BYTES - 10).to_bytes(2, "little")
        self._file.seek(0)
        self._file.write(start + header.encode().ljust(self._HEADER_BYTES - 11) + b"\n")
        self._file.close()

    def write(self, vectors: Vectors) -> None:
        """Write float32 (m, dim)."""
        self._file.write(np.ascontiguousarray(vectors, dtype="<f2").data)
        self._count += len(vectors)
