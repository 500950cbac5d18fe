"""The part of an approximate index that finds candidates: FAISS's graph or lists, over codes of the vectors.

A factory such as "PCA192,HNSW32_SQ8" first projects to 192 numbers. FAISS projects by a matrix product, whose rounding
depends on how many queries there are and which is slow for one; so the projection is done here, number by number.
Distances among the projected vectors are Euclidean: for unit vectors that is the order of cosines, and centring, which
a projection may do, leaves it as it is.

"SQ8_direct_signed" keeps a number as it is, rounded to a byte: half the time of "SQ8", which scales each. So what it is
projected by is scaled once, when it has learned, until the numbers fill a byte; and distances are scaled back.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from worker.index.arguments import BuildArguments
from worker.index.faiss_calls import add_codes, searched
from worker.index.vector_index import Rows, Vectors

ALL_THREADS: int = faiss.omp_get_max_threads()
BYTE = faiss.ScalarQuantizer.QT_8bit_direct_signed
LARGEST = 127.0  # in a byte
OPQ_ROUNDS = 20  # of FAISS's 50: from there on the recall changes no more
GRAPH_EFFORTS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
RERANKS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48)
# How much longer squared distances of codes may be than those of vectors, by rounding to 8 bits a number.
# Measured with 192 numbers of each vector, among 150,000 pairs: 0.007 at most with SQ8, 0.0014 with bytes.
CODE_ERROR = 0.007


class Structure:
    """Finds positions (0 to n - 1, in the order of adding) whose codes are near a query. Searches change nothing."""

    def __init__(self, index: Any, factory: str) -> None:
        """Args:
        index: a trained FAISS index, perhaps with linear transforms before it.
        factory: FAISS's description of it.

        Raises:
            ValueError: if it is of no kind that is known here.
        """
        self.factory = factory
        self._whole = index
        self._index = _inner(index)
        matrix, self._offset = _composed(faiss.downcast_index(index))
        self._projection = None if matrix is None else _in_16_bits(matrix)
        self._scale = 1.0 if matrix is None else float(np.linalg.norm(matrix[0]))  # rows of a rotation are of norm 1
        if self.is_graph:
            self._storage = faiss.downcast_index(self._index.storage)

    @classmethod
    def trained(cls, arguments: BuildArguments, sample: Vectors) -> "Structure":
        """Return an empty one.

        Args:
            arguments: what to build.
            sample: float32 (m, dim), unit rows, to learn codes and lists from.

        Raises:
            ValueError: if FAISS does not know the factory, or can't learn it from this sample.
        """
        try:
            index = faiss.index_factory(sample.shape[1], arguments.factory, faiss.METRIC_L2)
            faiss.omp_set_num_threads(ALL_THREADS)  # a search may have set another number for this thread
            inner = _inner(index)
            if isinstance(inner, faiss.IndexHNSW):
                inner.hnsw.efConstruction = arguments.ef_construction
            else:
                inner.cp.seed = 1 + arguments.seed
            for transform in _transforms(index):
                if isinstance(transform, faiss.OPQMatrix):
                    transform.niter = OPQ_ROUNDS
            index.train(np.ascontiguousarray(sample))
            if _is_bytes(inner):
                _fill_bytes(index, sample)
            for transform in _transforms(index):
                if isinstance(transform, faiss.PCAMatrix):
                    transform.PCAMat.resize(0)  # all directions: 16 MB for 2048 numbers, and used by training only
        except RuntimeError as error:
            raise ValueError(f"FAISS can't build {arguments.factory!r}: {_reason(error)}") from None
        return cls(index, arguments.factory)

    @classmethod
    def opened(cls, path: Path, factory: str) -> "Structure":
        """Read a file to memory, so that rows can be added; else as `mapped`."""
        return cls._read(path, factory, 0)

    @classmethod
    def mapped(cls, path: Path, factory: str) -> "Structure":
        """Open a file as a view: it is read as far as searches need it, and shared by processes.

        Raises:
            ValueError: if FAISS can't read it, or it is of no kind that is known here.
        """
        return cls._read(path, factory, faiss.IO_FLAG_MMAP_IFC)

    @classmethod
    def _read(cls, path: Path, factory: str, flags: int) -> "Structure":
        try:
            return cls(faiss.read_index(str(path), flags), factory)
        except RuntimeError as error:
            raise ValueError(f"FAISS can't read {path}: {_reason(error)}") from None

    def save(self, path: Path) -> None:
        """Write it to a file."""
        try:
            faiss.write_index(self._whole, str(path))
        except RuntimeError as error:  # FAISS's for whatever the file system refuses
            raise OSError(f"FAISS can't write {path}: {_reason(error)}") from None

    @property
    def is_graph(self) -> bool:
        """Whether it is a graph; else it is lists."""
        return isinstance(self._index, faiss.IndexHNSW)

    @property
    def is_exact(self) -> bool:
        """Whether its codes are the vectors themselves, so that there is nothing to re-rank."""
        codes = self._storage if self.is_graph else self._index
        return self._projection is None and isinstance(codes, faiss.IndexFlat | faiss.IndexIVFFlat)

    def efforts(self, depth: int) -> tuple[int, ...]:
        """Return what is worth trying for so many candidates, ascending."""
        if self.is_graph:
            return tuple(sorted({max(effort, depth) for effort in GRAPH_EFFORTS}))
        lists = int(self._index.nlist)
        return tuple(sorted({min(lists, round(2 ** (power / 2))) for power in range(2 * lists.bit_length())}))

    @property
    def reranks(self) -> tuple[int, ...]:
        """What is worth trying, ascending."""
        return (0,) if self.is_exact else RERANKS

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._index.ntotal)

    def add(self, pages: Iterable[Vectors]) -> None:
        """Add vectors, in pages of float32 (m, dim), unit rows."""
        faiss.omp_set_num_threads(ALL_THREADS)
        for page in pages:
            if _is_bytes(self._index):  # which FAISS would cut off, and wrap around
                self._index.add(np.rint(_transformed(self._whole, page)).clip(-LARGEST, LARGEST))
            else:
                self._whole.add(np.ascontiguousarray(page))
        # What lies before the index learns of its size only where it adds itself.
        self._whole.ntotal = self._index.ntotal

    def project(self, query: Vectors) -> Vectors:
        """Return a query as the codes are made, float32 (1, dim of the codes)."""
        if self._projection is None:
            return query
        found, places = searched(self._projection, query, self._projection.ntotal)
        projected: Vectors = np.empty((1, len(found)), np.float32)
        projected[0, places] = found
        return projected if self._offset is None else projected + self._offset

    def candidates(self, query: Vectors, count: int, effort: int) -> tuple[Vectors, Rows]:
        """Find near rows by graph or lists.

        Args:
            query: float32 (1, dim of the codes), as `project` gives it.
            count: how many are wanted.
            effort: nprobe or efSearch.

        Returns:
            Squared distances, ascending, and positions; at most `count`, fewer where the effort was too little.
        """
        if self.is_graph:
            parameters = faiss.SearchParametersHNSW(efSearch=max(effort, count))
        else:
            parameters = faiss.SearchParametersIVF(nprobe=min(effort, self._index.nlist))
        return self._found(self._index, query, count, parameters)

    @property
    def is_lower_bound(self) -> bool:
        """Whether distances of codes exceed those of vectors by CODE_ERROR at most.

        Rotating and leaving out directions makes no distance longer. Product quantisation may.
        """
        return isinstance(self._storage if self.is_graph else self._index, _SCALAR)

    def scan(self, query: Vectors, count: int, is_allowed: np.ndarray) -> tuple[Vectors, Rows]:
        """Find the nearest codes among some, bool (n,), by asking of each whether it is one; else as `candidates`."""
        selector = faiss.IDSelectorBitmap(np.packbits(is_allowed, bitorder="little"))
        if self.is_graph:
            return self._found(self._storage, query, count, faiss.SearchParameters(sel=selector))
        parameters = faiss.SearchParametersIVF(nprobe=self._index.nlist, sel=selector)
        return self._found(self._index, query, count, parameters)

    @property
    def copied_bytes(self) -> int:
        """How many bytes `copied` takes for a row; 0 where codes can't be copied."""
        return int(self._storage.code_size) if self.is_graph and isinstance(self._storage, _SCALAR) else 0

    def copied(self, positions: Rows) -> Any:
        """Return the codes at some positions, int64 (m,), for `scan_copied`; 2 µs a hundred of them."""
        copied = faiss.IndexScalarQuantizer(self._storage.d, self._storage.sq.qtype)
        copied.sq, copied.is_trained = self._storage.sq, True
        size = self._storage.code_size
        codes = faiss.rev_swig_ptr(self._storage.codes.data(), len(self) * size).reshape(-1, size)
        add_codes(copied, codes[positions])
        return copied

    def scan_copied(self, query: Vectors, count: int, copied: Any) -> tuple[Vectors, Rows]:
        """Find the nearest codes among copied ones; positions are those in the copy. Else as `candidates`."""
        return self._found(copied, query, min(count, copied.ntotal))

    def _found(self, index: Any, query: Vectors, count: int, parameters: Any = None) -> tuple[Vectors, Rows]:
        """Return squared distances of vectors of norm 1, and positions, without FAISS's padding."""
        distances, positions = searched(index, query, count, parameters)
        if positions[-1] < 0:
            is_found = positions >= 0
            distances, positions = distances[is_found], positions[is_found]
        return distances if self._scale == 1 else distances / self._scale**2, positions


_SCALAR = faiss.IndexScalarQuantizer | faiss.IndexIVFScalarQuantizer


def _is_bytes(index: Any) -> bool:
    """Whether codes are the numbers themselves, rounded."""
    codes = faiss.downcast_index(index.storage) if isinstance(index, faiss.IndexHNSW) else index
    return isinstance(codes, _SCALAR) and codes.sq.qtype == BYTE


def _fill_bytes(index: Any, sample: Vectors) -> None:
    """Scale what projects before an index, so that the sample's numbers fill a byte."""
    transforms = _transforms(index)
    if not transforms:
        raise ValueError(f"Codes of bytes need numbers that are projected first, as by PCAR{max(1, index.d // 2)}.")
    last = transforms[-1]
    scale = LARGEST / float(np.abs(_transformed(index, sample)).max())
    for numbers in (last.A, last.b):
        faiss.copy_array_to_vector(faiss.vector_to_array(numbers) * np.float32(scale), numbers)


def _inner(index: Any) -> Any:
    """Return the graph or the lists behind the transforms."""
    inner = faiss.downcast_index(index)
    if isinstance(inner, faiss.IndexPreTransform):
        inner = faiss.downcast_index(inner.index)
    if not isinstance(inner, faiss.IndexHNSW | faiss.IndexIVF):
        raise ValueError(f"{type(inner).__name__} is neither a graph (HNSW) nor lists (IVF)")
    if inner.metric_type != faiss.METRIC_L2:
        raise ValueError("its metric is not Euclidean")
    return inner


def _transforms(index: Any) -> list[Any]:
    """Return what lies before the graph or the lists."""
    if not isinstance(index, faiss.IndexPreTransform):
        return []
    return [faiss.downcast_VectorTransform(index.chain.at(number)) for number in range(index.chain.size())]


def _transformed(index: Any, vectors: Vectors) -> Vectors:
    """Return vectors, float32 (m, dim), as what lies before the graph or the lists makes them."""
    for transform in _transforms(index):
        vectors = transform.apply(np.ascontiguousarray(vectors))
    return vectors


def _composed(index: Any) -> tuple[Vectors | None, Vectors | None]:
    """Return one matrix (out, in) and offset (out,) for all transforms before an index; None where there is none."""
    matrix, offset = None, np.zeros(index.d)
    for transform in _transforms(index):
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


def _reason(error: RuntimeError) -> str:
    """Return FAISS's message without the function, file and line that it names first."""
    return re.split(r"\.(?:cpp|h):\d+: ", str(error).strip())[-1]
