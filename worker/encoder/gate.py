"""The accuracy gate: how far a runtime's embeddings may be from the reference's, which is torch in float32."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

EXACT_MEAN_COSINE = 0.995
INT8_MEAN_COSINE = 0.98
SAME_ID_MIN_COSINE = 0.9999
"""Runtimes that share an id compute one function: their embeddings stand in one index."""
PRECISION_DROP = 0.005
NORM_TOLERANCE = 1e-3
K = 5


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A runtime's embeddings of held-out images, compared with the reference's.

    Attributes:
        images: how many were compared.
        mean_cosine: of each embedding with the reference's of the same image.
        min_cosine: the worst of them.
        reference_precision: Precision@5 of the reference's embeddings; None without labels.
        precision: Precision@5 of the runtime's; None without labels.
    """

    images: int
    mean_cosine: float
    min_cosine: float
    reference_precision: float | None
    precision: float | None

    def failures(self, *, is_int8: bool, same_id: bool) -> list[str]:
        """Return each rule that is broken, as a clause; none if the runtime passes.

        Args:
            is_int8: whether the network was quantised.
            same_id: whether its embeddings stand beside the reference's.
        """
        wanted = INT8_MEAN_COSINE if is_int8 else EXACT_MEAN_COSINE
        broken = []
        if not self.mean_cosine >= wanted:
            broken.append(f"mean cosine {self.mean_cosine:.4f} is below {wanted}")
        if same_id and not self.min_cosine > SAME_ID_MIN_COSINE:
            broken.append(f"smallest cosine {self.min_cosine:.6f} is not above {SAME_ID_MIN_COSINE}")
        if self.precision is not None and self.reference_precision is not None:
            drop = self.reference_precision - self.precision
            if drop > PRECISION_DROP:
                broken.append(f"Precision@{K} is {100 * drop:.1f} points lower, and {100 * PRECISION_DROP} are allowed")
        return broken

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values, rounded for a manifest."""
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(self).items()}


def compare(embeddings: np.ndarray, reference: np.ndarray, labels: Sequence[str] | None) -> Accuracy:
    """Measure embeddings against the reference's.

    Args:
        embeddings: float32 (n, dim), n >= 1. Rows should have L2 norm 1; a row that hasn't counts with cosine -1,
            since its scores would be wrong.
        reference: the same of the same images.
        labels: one for each image, or None.

    Raises:
        ValueError: if there is nothing to compare.
    """
    if len(embeddings) == 0:
        raise ValueError("the accuracy gate needs at least one held-out image")
    exact = embeddings.astype(np.float64)
    has_norm_one = np.abs(np.linalg.norm(exact, axis=1) - 1) < NORM_TOLERANCE  # (n,), False for NaN
    cosines = np.where(has_norm_one, np.einsum("ij,ij->i", exact, reference.astype(np.float64)), -1.0)  # (n,)
    return Accuracy(
        images=len(embeddings),
        mean_cosine=float(cosines.mean()),
        min_cosine=float(cosines.min()),
        reference_precision=precision(reference, labels) if labels else None,
        precision=precision(embeddings, labels) if labels else None,
    )


def precision(embeddings: np.ndarray, labels: Sequence[str]) -> float | None:
    """Return Precision@5 of exact search for each image among the others, leaving itself out.

    Relevant is an image of the same label; images whose label no other has don't ask, but can be found.

    Args:
        embeddings: float32 (n, dim), rows of L2 norm 1.
        labels: n of them.

    Returns:
        Mean over queries of (relevant among the first 5) / 5, in [0, 1]; fewer than 5 others count as they are.
        None if no label occurs twice.
    """
    _, kinds, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    asking = np.flatnonzero(counts[kinds] > 1)
    if len(asking) == 0:
        return None
    found = 0.0
    for rows in np.array_split(asking, len(asking) // 1024 + 1):
        scores = embeddings[rows] @ embeddings.T  # (r, n)
        scores[np.arange(len(rows)), rows] = -np.inf
        nearest = np.argsort(-scores, axis=1, kind="stable")[:, : min(K, len(embeddings) - 1)]  # (r, 5), ties by row
        found += float((kinds[nearest] == kinds[rows, None]).mean(axis=1).sum())
    return found / len(asking)
