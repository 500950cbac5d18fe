"""Figures of retrieval, from which neighbours each query found; and how sure they are."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


def precision_at(relevant: np.ndarray, k: int) -> np.ndarray:
    """Return (relevant among the first k) / k of each query, float64 (q,).

    Args:
        relevant: bool (q, m), whether each neighbour is relevant, best first. Where fewer than k were found, the
            missing ones count as misses.
        k: >= 1.
    """
    return np.asarray(relevant[:, :k].sum(axis=1) / k, dtype=np.float64)


def recall_at(relevant: np.ndarray, k: int) -> np.ndarray:
    """Return 1 for each query that found a relevant one among its first k, else 0, float64 (q,).

    This is Recall@k as metric learning uses the word (Musgrave et al., "A Metric Learning Reality Check", 2020).
    """
    return np.asarray(relevant[:, :k].any(axis=1), dtype=np.float64)


def average_precision_at_r(relevant: np.ndarray, existing: np.ndarray) -> np.ndarray:
    """Return MAP@R's average precision of each query, float64 (q,): mean over i <= R of P@i where i is relevant.

    Args:
        relevant: bool (q, m), best first; m >= the largest R.
        existing: int64 (q,), R: how many relevant ones the index holds. A query without any gives 0.

    Source: Musgrave et al. (2020), section 3.2.
    """
    places = np.arange(1, relevant.shape[1] + 1)
    within = relevant & (places <= existing[:, None])  # (q, m)
    precisions = np.cumsum(within, axis=1) / places
    average: np.ndarray = (precisions * within).sum(axis=1) / np.maximum(existing, 1)
    return average


@dataclass(frozen=True)
class Interval:
    """A mean over queries with its 95% confidence interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


def interval(values: np.ndarray, seed: int = 0) -> Interval:
    """Return the mean of one figure over queries, with the percentile bootstrap's 95% interval.

    Args:
        values: float64 (q,), q >= 1.
        seed: the same gives the same interval.

    Source: Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979.
    """
    low, high = np.quantile(_resampled_means(values, seed), (0.025, 0.975))
    return Interval(float(values.mean()), float(low), float(high))


def _resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.array([values[random.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)])


@dataclass(frozen=True)
class Difference:
    """How far one encoder's figure is above another's on the same queries.

    Attributes:
        points: mean difference with its 95% interval.
        p_value: how often chance alone gives a difference as large, if both were equally good.
    """

    points: Interval
    p_value: float


def paired_difference(one: np.ndarray, other: np.ndarray, seed: int = 0) -> Difference:
    """Compare two encoders query by query with the paired randomisation test: signs of differences are flipped.

    Args:
        one: float64 (q,), a figure of each query.
        other: the same of the other encoder, the same queries in the same order.
        seed: the same gives the same result.

    Source: Smucker et al., "A Comparison of Statistical Significance Tests for Information Retrieval Evaluation", 2007.
    """
    differences = one - other
    random = np.random.default_rng(seed)
    observed = abs(differences.mean())
    flipped = [abs((differences * random.choice((-1, 1), len(differences))).mean()) for _ in range(RESAMPLES)]
    extreme = sum(value >= observed - 1e-12 for value in flipped)
    return Difference(interval(differences, seed), (extreme + 1) / (RESAMPLES + 1))


Figure = Callable[[np.ndarray], np.ndarray]
