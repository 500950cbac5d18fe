"""More embeddings of the same structure: each new one lies among the neighbours of a real one.

A new vector is a real one, moved towards or away from each of its nearest real neighbours by a random share:

    new = x + sum_j w_j (neighbour_j - x),   w_j ~ N(0, SPREAD^2 / NEIGHBOURS)

so it moves about as far as its neighbours are away (times SPREAD), and in the directions only in which these lie:
dense places stay dense, clusters stay apart, and the local dimension stays what it was. Uniform noise would have the
dimension of the space, where every index is slow, and copies with a little noise would be found too easily.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np

from worker.index.vector_index import Rows, Vectors

NEIGHBOURS = 16
SPREAD = 0.8  # dimension before and after: docs/results/index.md
BLOCK = 20_000


def grow(real: Vectors, count: int, seed: int = 0) -> Iterator[Vectors]:
    """Yield `count` vectors in blocks: the real ones first, then new ones; the same each time.

    Args:
        real: float32 (n, dim), unit rows, more than NEIGHBOURS.
        count: how many in all.
        seed: of the random numbers.

    Yields:
        float32 (m, dim), unit rows, m <= BLOCK.
    """
    yield real[:count]
    neighbours = _neighbours(real)
    for number, start in enumerate(range(len(real), count, BLOCK)):
        random = np.random.default_rng([seed, number])
        yield _children(real, neighbours, min(BLOCK, count - start), random)


def grown(real: Vectors, count: int, folder: Path) -> Vectors:
    """Return what `grow` yields, float32 (count, dim), mapped from a file in a folder; written there once."""
    key = hashlib.sha256(real.tobytes()).hexdigest()[:8]
    path = folder / f"grown-{count}-{NEIGHBOURS}-{SPREAD}-{key}.npy"
    if not path.is_file():
        aside = path.with_suffix(".part")
        file = np.lib.format.open_memmap(aside, "w+", np.float32, (count, real.shape[1]))
        start = 0
        for block in grow(real, count):
            file[start : start + len(block)] = block
            start += len(block)
        file.flush()
        aside.rename(path)
    vectors: Vectors = np.load(path, mmap_mode="r")
    return vectors


def _neighbours(real: Vectors) -> Rows:
    """Return int64 (n, NEIGHBOURS): rows of each one's nearest others."""
    nearest: Rows = faiss.knn(real, real, NEIGHBOURS + 1, metric=faiss.METRIC_INNER_PRODUCT)[1]
    others = nearest != np.arange(len(real))[:, None]
    others[others.all(axis=1), -1] = False  # among copies, one may not be among its own nearest
    chosen: Rows = nearest[others].reshape(len(real), NEIGHBOURS)
    return chosen


def _children(real: Vectors, neighbours: Rows, count: int, random: np.random.Generator) -> Vectors:
    parents = random.integers(0, len(real), count)  # (m,)
    weights = random.normal(0, SPREAD / np.sqrt(NEIGHBOURS), (count, NEIGHBOURS)).astype(np.float32)
    children: Vectors = real[parents] * (1 - weights.sum(axis=1, keepdims=True))
    for place in range(NEIGHBOURS):
        children += weights[:, place : place + 1] * real[neighbours[parents, place]]
    children /= np.linalg.norm(children, axis=1, keepdims=True)
    return children
