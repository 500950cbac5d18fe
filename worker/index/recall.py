"""How much of the truth a search finds; the truth is every row compared with the query."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np

from worker.index.half_vectors import HalfVectors
from worker.index.vector_index import Neighbours, ReadableIndex, Rows, Vectors

BLOCK_ROWS = 8192
# Two rows whose scores differ by less are tied: a matrix product rounds otherwise than products one by one.
TIE = 2e-6

Search = Callable[[Vectors], Neighbours]
"""Searches with one query, float32 (1, dim)."""


@dataclass(frozen=True)
class Measured:
    """What some searches found, and how long they took.

    Attributes:
        recall_at_1: share of queries whose most similar row was found first.
        recall_at_10: share of the ten most similar rows that were found.
        recall_error: standard error of recall_at_10.
        quiet_ms: what a fifth of all searches did not exceed: whatever else the machine does disturbs it least.
        p50_ms: median of one search.
        p95_ms: what nineteen of twenty searches did not exceed.
    """

    recall_at_1: float
    recall_at_10: float
    recall_error: float
    quiet_ms: float
    p50_ms: float
    p95_ms: float

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def true_scores(stored: HalfVectors, queries: Vectors, k: int, allowed: Rows | None = None) -> Vectors:
    """Return the k best scores of each query, float32 (q, min(k, rows)), descending.

    Args:
        stored: all rows.
        queries: float32 (q, dim), unit rows.
        k: >= 1.
        allowed: positions that count, ascending; None means all.
    """
    total = len(stored) if allowed is None else len(allowed)
    best = np.empty((len(queries), 0), np.float32)
    for start in range(0, total, BLOCK_ROWS):
        end = min(total, start + BLOCK_ROWS)
        vectors = stored.at(slice(start, end) if allowed is None else allowed[start:end])
        together = np.hstack([best, queries @ vectors.T])  # (q, m)
        wanted = min(k, together.shape[1])
        best = -np.partition(-together, wanted - 1, axis=1)[:, :wanted]
    ascending: Vectors = np.sort(best, axis=1)
    return ascending[:, ::-1]


def recalls(found: Vectors, truth: Vectors) -> Vectors:
    """Return the recall of each query, float32 (q,), by scores, so that any of several equal rows will do.

    Args:
        found: float32 (q, m), true scores of what was found, descending.
        truth: float32 (q, k), the best scores, descending, k <= m.
    """
    shares: Vectors = (found[:, : truth.shape[1]] >= truth[:, -1:] - TIE).mean(axis=1, dtype=np.float32)
    return shares


def measure(index: ReadableIndex, search: Search, queries: Vectors, truth: Vectors) -> Measured:
    """Search with each query alone, and compare with the truth.

    Args:
        index: gives the vectors of what was found.
        search: asks it for as many rows as `truth` has columns, at least.
        queries: float32 (q, dim), unit rows, q >= 1.
        truth: float32 (q, k), as `true_scores` gives them.
    """
    scores, seconds = np.full(truth.shape, -np.inf, np.float32), np.empty(len(queries))
    for number in range(len(queries)):
        query = queries[number : number + 1]
        start = perf_counter()
        found = search(query)
        seconds[number] = perf_counter() - start
        exact = np.sort(index.vectors(found.rows[0])[1] @ query[0])[::-1][: truth.shape[1]]
        scores[number, : len(exact)] = exact
    of_each = recalls(scores, truth)
    return Measured(
        recall_at_1=float(recalls(scores[:, :1], truth[:, :1]).mean()),
        recall_at_10=float(of_each.mean()),
        recall_error=float(of_each.std() / np.sqrt(len(of_each))),
        quiet_ms=float(np.percentile(seconds, 20) * 1000),
        p50_ms=float(np.percentile(seconds, 50) * 1000),
        p95_ms=float(np.percentile(seconds, 95) * 1000),
    )
