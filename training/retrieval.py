"""What queries find in an index of other photos: the protocol that every figure is measured by.

Queries are photos of one split, the index holds photos of other splits, relevant is what shares the query's value of a
column. The index is the one that serves (`worker.index.flat_index`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.labelled_photos import LabelledPhotos
from training.metrics import average_precision_at_r, precision_at, recall_at
from worker.index.flat_index import FlatIndex

DEPTH = 10


@dataclass(frozen=True)
class Found:
    """What each query found.

    Attributes:
        photos: queries and index, as they were read.
        queries: int64 (q,), rows of `photos`.
        index: int64 (n,), rows of `photos`.
        neighbours: int64 (q, m), rows of `photos`, best first; m is the largest number of relevant ones, 10 at least,
            or the whole index where that is smaller.
        scores: float32 (q, m), cosine similarity, descending.
    """

    photos: LabelledPhotos
    queries: np.ndarray
    index: np.ndarray
    neighbours: np.ndarray
    scores: np.ndarray

    def relevant(self, column: str) -> np.ndarray:
        """Return whether each neighbour has its query's value of a column, bool (q, m); an empty value is nobody's."""
        values = self.photos.values[column]
        asked = values[self.queries][:, None]
        same: np.ndarray = (values[self.neighbours] == asked) & (asked != "")
        return same

    def figures(self) -> dict[str, np.ndarray]:
        """Return each figure of each query, float64 (q,) by name; docs/training.md has their formulas."""
        photos = self.photos
        relevant = self.relevant(photos.label)
        values, counts = np.unique(photos.values[photos.label][self.index], return_counts=True)
        count_of = dict(zip(values.tolist(), counts.tolist(), strict=True))
        existing = np.array([count_of.get(value, 0) for value in photos.values[photos.label][self.queries].tolist()])
        figures = {f"p_at_{k}": precision_at(relevant, k) for k in (1, 5, 10)}
        figures |= {f"recall_at_{k}": recall_at(relevant, k) for k in (1, 5, 10)}
        figures["map_at_r"] = average_precision_at_r(relevant, existing)
        for column in photos.values:
            if column != photos.label:
                figures[agreement_name(column)] = precision_at(self.relevant(column), 5)
        return figures


def agreement_name(column: str) -> str:
    """Return the name of a column's agreement among the first five hits."""
    return "colour_at_5" if column in ("colour", "base_colour") else f"p_at_5_{column}"


def search(
    photos: LabelledPhotos,
    embeddings: np.ndarray,
    queries: np.ndarray,
    index: np.ndarray,
    depth: int | None = None,
) -> Found:
    """Search with some photos among others, exactly.

    Args:
        photos: n of them.
        embeddings: float32 (n, dim), rows of L2 norm 1.
        queries: int64 (q,), rows to search with.
        index: int64 (m,), rows to search among.
        depth: neighbours of each query; None means as many as MAP@R needs.
    """
    if depth is None:
        _, counts = np.unique(photos.values[photos.label][index], return_counts=True)
        depth = max(DEPTH, int(counts.max()))
    flat = FlatIndex(embeddings.shape[1])
    flat.add(index, np.ascontiguousarray(embeddings[index]))
    nearest = flat.search(np.ascontiguousarray(embeddings[queries]), depth)
    return Found(photos, queries, index, nearest.rows, nearest.scores)


def means(figures: dict[str, np.ndarray], names: Sequence[str] | None = None) -> dict[str, float]:
    """Return the mean over queries of each figure."""
    return {name: float(values.mean()) for name, values in figures.items() if names is None or name in names}
