"""Every approximate kind of index, over few rows, searched so thoroughly that it finds what brute force finds."""

from pathlib import Path

import numpy as np

from worker.index.approximate_index import ApproximateIndex
from worker.index.arguments import BuildArguments, FilterPlan, QueryArguments
from worker.index.half_vectors import HalfVectors
from worker.index.structure import Structure
from worker.index.vector_index import Rows, Vectors

DIM, COUNT = 32, 400
FACTORIES = {
    "hnsw": "HNSW8",
    "hnsw of codes": "PCA16,HNSW8_SQ8",
    "hnsw of bytes": "PCAR16,HNSW8_SQ8_direct_signed",
    "ivf-flat": "IVF4,Flat",
    "ivf-sq": "PCA16,IVF4,SQ8",
    "ivf-pq": "IVF4,PQ8x4",
    "opq-ivf-pq": "PCA16,OPQ4,IVF4,PQ4x4",
    "opq-ivf-pq, fast scan": "OPQ8,IVF4,PQ8x4fs",
}
THOROUGH = QueryArguments(effort=COUNT, rerank=COUNT)
PLANS = {
    "exact": FilterPlan(exact_rows=COUNT, rerank=COUNT),
    "scan": FilterPlan(exact_rows=0, scan_share=1.0, rerank=COUNT),
    "search": FilterPlan(exact_rows=0, scan_share=0.0, rerank=COUNT),
}


def unit(count: int, seed: int = 0, dim: int = DIM) -> Vectors:
    """Return random float32 (count, dim), rows of L2 norm 1."""
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def train(factory: str, path: Path) -> None:
    """Write a structure that has learned its codes and lists, and holds nothing yet."""
    Structure.trained(BuildArguments(factory), unit(2000, seed=99)).save(path)


def fill(
    trained: tuple[Path, str], folder: Path, rows: Rows, vectors: Vectors, starts: Rows | None = None
) -> ApproximateIndex:
    """Fill a trained structure, given by its file and factory, save it to a folder, and open it as a worker does."""
    structure = Structure.opened(*trained)
    structure.add([vectors[: len(vectors) // 2], vectors[len(vectors) // 2 :]])
    structure.save(folder / "structure")
    np.save(folder / "vectors.npy", vectors.astype(np.float16))
    stored = HalfVectors.mapped(folder / "vectors.npy")
    mapped = Structure.mapped(folder / "structure", trained[1])
    return ApproximateIndex(mapped, stored, rows, THOROUGH, PLANS["scan"], starts)
