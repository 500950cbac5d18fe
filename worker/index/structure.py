"""The part of an approximate index that finds candidates: FAISS's graph or lists, over codes of the vectors.

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
from worker.index.projection import LARGEST, Projection, fill_bytes, transformed, transforms
from worker.index.vector_index import Rows, Vectors

ALL_THREADS: int = faiss.omp_get_max_threads()
BYTE = faiss.ScalarQuantizer.QT_8bit_direct_signed
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
        self._projection = Projection(index)
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
            for transform in transforms(index):
                if isinstance(transform, faiss.OPQMatrix):
                    transform.niter = OPQ_ROUNDS
            index.train(np.ascontiguousarray(sample))
            if _is_bytes(inner):
                fill_bytes(index, sample)
            for transform in transforms(index):
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
        return not self._projection.is_any and isinstance(codes, faiss.IndexFlat | faiss.IndexIVFFlat)

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
                self._index.add(np.rint(transformed(self._whole, page)).clip(-LARGEST, LARGEST))
            else:
                self._whole.add(np.ascontiguousarray(page))
        # What lies before the index learns of its size only where it adds itself.
        self._whole.ntotal = self._index.ntotal

    def project(self, query: Vectors) -> Vectors:
        """Return a query as the codes are made, float32 (1, dim of the codes)."""
        return self._projection.of(query)

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

        Rotating and leaving out directions makes no distance longer. Whitening and product quantisation may.
        """
        return self._projection.is_rotation and isinstance(self._storage if self.is_graph else self._index, _SCALAR)

    def scan(self, query: Vectors, count: int, is_allowed: np.ndarray) -> tuple[Vectors, Rows]:
        """Find the nearest codes among some, bool (n,), by asking of each whether it is one; else as `candidates`."""
        selector = faiss.IDSelectorBitmap(np.packbits(is_allowed, bitorder="little"))
        if self.is_graph:
            return self._found(self._storage, query, count, faiss.SearchParameters(sel=selector))
        parameters = faiss.SearchParametersIVF(nprobe=self._index.nlist, sel=selector)
        return self._found(self._index, query, count, parameters)

    @property
    def code_bytes(self) -> int:
        """How long a code is."""
        return int(self._storage.code_size if self.is_graph else self._index.code_size)

    def copied(self, positions: Rows) -> Any:
        """Return the codes at some positions, int64 (m,), for `scan_copied`: 2 µs a hundred of them.

        None where codes can't be copied: lists keep them by list, and only scalar ones are compared one by one.
        """
        if not (self.is_graph and isinstance(self._storage, _SCALAR)):
            return None
        copied = faiss.IndexScalarQuantizer(self._storage.d, self._storage.sq.qtype)
        copied.sq, copied.is_trained = self._storage.sq, True
        codes = faiss.rev_swig_ptr(self._storage.codes.data(), len(self) * self.code_bytes)
        add_codes(copied, codes.reshape(-1, self.code_bytes)[positions])
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
        scale = self._projection.scale
        return distances if scale == 1 else distances / scale**2, positions


_SCALAR = faiss.IndexScalarQuantizer | faiss.IndexIVFScalarQuantizer


def _is_bytes(index: Any) -> bool:
    """Whether codes are the numbers themselves, rounded."""
    codes = faiss.downcast_index(index.storage) if isinstance(index, faiss.IndexHNSW) else index
    return isinstance(codes, _SCALAR) and codes.sq.qtype == BYTE


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


def _reason(error: RuntimeError) -> str:
    """Return FAISS's message without the function, file and line that it names first."""
    return re.split(r"\.(?:cpp|h):\d+: ", str(error).strip())[-1]
