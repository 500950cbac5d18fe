"""How thorough a search must be to find enough: measured on rows that the index does not hold."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from statistics import fmean
from typing import Any

import numpy as np

from worker.index.approximate_index import ApproximateIndex
from worker.index.arguments import FULL_PLAN, FilterPlan, QueryArguments
from worker.index.half_vectors import HalfVectors
from worker.index.recall import Measured, measure, true_scores
from worker.index.vector_index import Neighbours, Rows, Vectors

K = 10
SHARES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5)
FAR = (0.03, 0.3)
FILTER_QUERIES = 50
# The surest first: it is taken where another one is hardly faster.
WAYS = {
    "exact": FULL_PLAN,
    "scan": FilterPlan(exact_rows=0, scan_share=1.0),
    "search": FilterPlan(exact_rows=0, scan_share=0.0),
}
NEARLY = 1.2
SLOWER = 1.5
NOTHING = 0.0005  # in recall: five rows of a thousand searches


@dataclass(frozen=True)
class Tuned:
    """Query arguments, and what was measured with them."""

    arguments: QueryArguments
    measured: Measured

    def reaches(self, target: float) -> bool:
        """Tell whether the recall is at the target for sure: by more than its standard error."""
        return self.measured.recall_at_10 - self.measured.recall_error >= target or self.measured.recall_at_10 == 1


class Tuning:
    """Measures an index with queries that it does not hold."""

    def __init__(self, index: ApproximateIndex, stored: HalfVectors, queries: Vectors) -> None:
        """Args:
        index: to be searched; its rows are the positions.
        stored: its vectors.
        queries: float32 (q, dim), unit rows, q >= 1.
        """
        self._index = index
        self._stored = stored
        self._queries = queries
        self._truth = true_scores(stored, queries, K)

    def tune(self, target: float) -> Tuned:
        """Return the fastest arguments that reach a target; where none do, those that find most.

        For each re-rank depth, efforts are tried in ascending order until one reaches the target. More effort than what
        changes nothing, or takes longer than what reaches it already, is not tried; nor is deeper re-ranking.
        """
        best: Tuned | None = None
        most: Tuned | None = None
        for rerank in self._index.reranks:
            before = 0.0
            for effort in self._index.efforts(QueryArguments(1, rerank).depth(K)):
                tried = self.try_out(QueryArguments(effort, rerank))
                recall, milliseconds = tried.measured.recall_at_10, tried.measured.quiet_ms
                if most is None or recall > most.measured.recall_at_10:
                    most = tried
                is_faster = best is None or milliseconds < best.measured.quiet_ms
                if tried.reaches(target) and is_faster:
                    best = tried
                if tried.reaches(target) or not is_faster or recall - before < NOTHING:
                    break
                before = recall
            if best is not None and milliseconds > SLOWER * best.measured.quiet_ms:
                break
        found = best or most
        assert found is not None, "there are always arguments to try"  # noqa: S101
        return found

    def try_out(self, arguments: QueryArguments) -> Tuned:
        """Measure one choice of arguments."""
        return Tuned(arguments, self._measure(arguments, self._queries, self._truth))

    def plan_filters(self, arguments: QueryArguments, target: float) -> tuple[FilterPlan, list[dict[str, Any]]]:
        """Choose the way of filtered searches: for each share of allowed rows the fastest that finds enough.

        It is measured with rows allowed at random, and with those most similar to one row, as the items of a category
        are: most queries are far from all of these, and graph or lists lead to their neighbours, who are not allowed.

        Returns:
            The plan, and what was measured: one JSON value for each share and way.
        """
        by_likeness, total = self._by_likeness(), len(self._stored)
        rerank = self._filtered_rerank(
            arguments, target, [_frozen(np.sort(by_likeness[: int(share * total)])) for share in FAR]
        )
        table: list[dict[str, Any]] = []
        shares, fastest = [], list[str]()
        for share in SHARES:
            count = round(share * total)
            if count < 1:
                continue
            filters = (self._random(count), _frozen(np.sort(by_likeness[:count])))
            ways = {way: self._filtered(arguments, filters, replace(plan, rerank=rerank)) for way, plan in WAYS.items()}
            table += [{"share": share, "way": way, **measured.to_dict()} for way, measured in ways.items()]
            enough = {way: found for way, found in ways.items() if found.recall_at_10 >= target}
            quickest = min((found.quiet_ms for found in enough.values()), default=0.0)
            shares.append(share)
            fastest.append(next((way for way in enough if enough[way].quiet_ms <= NEARLY * quickest), "exact"))
        exact = _last(shares, fastest, {"exact"})
        scan = _last(shares, fastest, {"exact", "scan"})
        return FilterPlan(round(exact * total), scan, rerank), table

    def _filtered_rerank(self, arguments: QueryArguments, target: float, filters: Sequence[Rows]) -> int:
        """Return the least re-rank depth with which a scan of alike rows finds enough; else the greatest."""
        for rerank in self._index.reranks:
            plan = replace(WAYS["scan"], rerank=rerank)
            if rerank >= arguments.rerank and self._filtered(arguments, filters, plan).recall_at_10 >= target:
                return rerank
        return self._index.reranks[-1]

    def _random(self, count: int) -> Rows:
        return _frozen(np.sort(np.random.default_rng(0).choice(len(self._stored), count, replace=False)))

    def _by_likeness(self) -> Rows:
        """Return all positions by likeness to one of them."""
        total = len(self._stored)
        pivot = self._stored.at(np.array([total // 2]))[0]
        return np.argsort(-self._stored.scores(pivot, np.arange(total)), kind="stable")

    def _filtered(self, arguments: QueryArguments, filters: Sequence[Rows], plan: FilterPlan) -> Measured:
        """Return the lowest recall, and the mean latency, of some filters (positions) with one way."""
        queries = self._queries[:FILTER_QUERIES]
        found = []
        for positions in filters:
            truth = true_scores(self._stored, queries, K, positions)
            found.append(self._measure(arguments, queries, truth, positions, plan))
        worst = min(found, key=lambda measured: measured.recall_at_10)
        means = {name: fmean(getattr(one, name) for one in found) for name in ("quiet_ms", "p50_ms", "p95_ms")}
        return replace(worst, **means)

    def _measure(
        self,
        arguments: QueryArguments,
        queries: Vectors,
        truth: Vectors,
        allowed: Rows | None = None,
        plan: FilterPlan | None = None,
    ) -> Measured:
        def search(query: Vectors) -> Neighbours:
            return self._index.search(query, K, allowed, arguments, plan)

        return measure(self._index, search, queries, truth)


def _frozen(rows: Rows) -> Rows:
    """Return rows that can't change, as `FilteredRows` gives them: an index may remember what it made of them."""
    rows.flags.writeable = False
    return rows


def _last(shares: Sequence[float], ways: Sequence[str], wanted: set[str]) -> float:
    """Return the greatest share up to which one of the wanted ways is the choice for all; 0 if for none."""
    leading = takewhile(lambda pair: pair[1] in wanted, zip(shares, ways, strict=True))
    return max((share for share, _ in leading), default=0.0)
