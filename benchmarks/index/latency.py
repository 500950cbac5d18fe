"""Recall and latency of any engine, judged from outside: scores are computed anew from the vectors."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter

import faiss
import numpy as np

from worker.index.recall import recalls
from worker.index.vector_index import Rows, Vectors

K = 10
ROUNDS = 3
Engine = Callable[[Vectors], Rows]
"""Searches with one query, float32 (1, dim), and returns the rows of its ten nearest, int64 (10,)."""


@dataclass(frozen=True)
class Point:
    """One setting of one engine.

    Attributes:
        setting: what was set, in words.
        recall: recall@10, by scores: any of several equal rows will do.
        p50_ms: median of one search, one at a time.
        p95_ms: what nineteen of twenty searches did not exceed.
    """

    setting: str
    recall: float
    p50_ms: float
    p95_ms: float


class Judge:
    """Asks engines, and compares with exact search."""

    def __init__(self, vectors: Vectors, queries: Vectors, truth: Vectors) -> None:
        """Args:
        vectors: float32 (n, dim), what engines hold; row i is the vector of row id i.
        queries: float32 (q, dim).
        truth: float32 (q, 10), the best scores, descending.
        """
        self._vectors = vectors
        self._queries = queries
        self._truth = truth

    def judge(self, setting: str, engine: Engine, queries: int | None = None, rounds: int = ROUNDS) -> Point:
        """Measure one setting: each query once for its recall, and some rounds for the latency.

        Args:
            setting: in words.
            engine: to be asked.
            queries: how many; None takes all.
            rounds: how often; of a query's latencies the least counts, since this machine does other things as well.
        """
        asked = self._queries[:queries]
        seconds = np.full(len(asked), np.inf)
        found = np.full((len(asked), K), -1, np.int64)
        for _ in range(rounds):
            for number in range(len(asked)):
                query = asked[number : number + 1]
                start = perf_counter()
                rows = engine(query)
                seconds[number] = min(seconds[number], perf_counter() - start)
                found[number, : len(rows)] = rows
        scores = np.array([self._vectors[rows] @ query for rows, query in zip(found, asked, strict=True)])  # (q, 10)
        scores = np.where(found >= 0, scores, -np.inf)
        recall = float(recalls(-np.sort(-scores, axis=1), self._truth[: len(asked)]).mean())
        p50, p95 = np.percentile(seconds * 1000, [50, 95])
        return Point(setting, recall, float(p50), float(p95))


def best_scores(queries: Vectors, vectors: Vectors) -> Vectors:
    """Return the ten best scores of each query by exact search, float32 (q, min(10, n)), descending."""
    scores: Vectors = faiss.knn(queries, vectors, min(K, len(vectors)), metric=faiss.METRIC_INNER_PRODUCT)[0]
    return scores


def fastest(points: Iterable[Point], recall: float) -> Point | None:
    """Return the point with the lowest median among those that reach a recall."""
    reaching = [point for point in points if point.recall >= recall]
    return min(reaching, key=lambda point: point.p50_ms, default=None)
