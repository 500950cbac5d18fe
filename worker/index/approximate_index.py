"""An index of any approximate kind: candidates from a structure of codes, scores from the stored vectors."""

import math

import faiss
import numpy as np

from worker.index.allowed_rows import FEW_SHARE, Allowed, Filters, RowPlaces
from worker.index.arguments import FilterPlan, QueryArguments, depth
from worker.index.half_vectors import HalfVectors
from worker.index.structure import CODE_ERROR, Structure
from worker.index.vector_index import (
    Neighbours,
    Rows,
    Vectors,
    check_search,
    no_neighbours,
)

# Candidates whose vectors are compared before it is asked how many more may be among the best.
FIRST_SCORED = 64
# Of all rows, so many are looked at that enough are allowed, by so many standard deviations of chance.
SURE = 2.0


class ApproximateIndex:
    """A ReadableIndex that never changes. Each query is searched alone, so it finds the same in any company.

    It reads shared memory only and locks nothing: threads search side by side. Rows of the same image share one vector:
    a graph in which hundreds of copies are each other's nearest would lead nowhere else.
    """

    def __init__(
        self,
        structure: Structure,
        stored: HalfVectors,
        rows: Rows,
        arguments: QueryArguments,
        plan: FilterPlan,
        starts: Rows | None = None,
    ) -> None:
        """Args:
        structure: finds candidates.
        stored: the vectors, in the order of the structure.
        rows: int64 (n,), ids, each once, in the order of their vectors.
        arguments: how thorough a search is.
        plan: which way a filtered search takes.
        starts: int64 (vectors + 1,), where the rows of each vector begin; None: each vector has one row.

        Raises:
            ValueError: if the parts don't belong together.
        """
        starts = np.arange(len(rows) + 1) if starts is None else starts
        is_whole = len(structure) == len(stored) == len(starts) - 1 and (np.diff(starts) > 0).all()
        if not is_whole or (starts[0], starts[-1]) != (0, len(rows)):
            raise ValueError(f"{len(structure)} codes, {len(stored)} vectors, {len(rows)} rows don't belong together")
        self._structure = structure
        self._stored = stored
        self._rows = rows
        self._places = RowPlaces(rows, starts)
        self._filters = Filters(self._places, structure)
        self.arguments = arguments
        self.plan = plan

    @property
    def is_exact(self) -> bool:
        """Whether it compares with all rows."""
        return False

    def efforts(self, depth: int) -> tuple[int, ...]:
        """Return the efforts that are worth trying for so many candidates, ascending."""
        return self._structure.efforts(depth)

    @property
    def reranks(self) -> tuple[int, ...]:
        """The re-rank depths that are worth trying, ascending."""
        return self._structure.reranks

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._stored.dim

    @property
    def rows(self) -> Rows:
        """All rows, int64 (n,). Not to be modified."""
        return self._rows

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def vectors(self, rows: Rows) -> tuple[Rows, Vectors]:
        """Return rows that are here, and their vectors in half precision; see ReadableIndex.vectors."""
        places = self._places.of(rows)
        return self._rows[places], self._stored.at(self._places.vectors(places))

    def search(
        self,
        queries: Vectors,
        k: int,
        allowed: Rows | None = None,
        arguments: QueryArguments | None = None,
        plan: FilterPlan | None = None,
    ) -> Neighbours:
        """Find the k most similar rows for each query; see ReadableIndex.search.

        Args:
            queries: as there.
            k: as there.
            allowed: as there.
            arguments: how thorough this search is; None takes the index's.
            plan: which way it takes with a filter; None takes the index's.

        Returns:
            As there. What is found may lack some of the most similar rows, but is never less than k for that.
        """
        check_search(queries, k, self.dim)
        chosen = None if allowed is None else self._filters.get(allowed, self.plan.scan_share)
        k = min(k, len(self) if chosen is None else len(chosen.places))
        if k == 0 or len(queries) == 0:
            return no_neighbours(len(queries))
        faiss.omp_set_num_threads(1)  # of the calling thread; starting others takes longer than one search
        how = arguments or self.arguments, plan or self.plan
        found = [self._search(query, k, chosen, *how) for query in np.ascontiguousarray(queries)]
        return Neighbours(np.array([scores for scores, _ in found]), np.array([rows for _, rows in found]))

    def _search(
        self, query: Vectors, k: int, chosen: Allowed | None, arguments: QueryArguments, plan: FilterPlan
    ) -> tuple[Vectors, Rows]:
        """Return scores and rows, (k,) both, of one query, float32 (dim,); there are as many as k rows."""
        total = len(self._stored)
        count = total if chosen is None else chosen.count
        if chosen is not None and count <= max(k, plan.exact_rows):
            positions = chosen.positions
            return self._best(self._stored.scores(query, positions), positions, k, chosen)
        projected = self._structure.project(query[None])
        distances, positions = self._candidates(projected, k, chosen, arguments, plan)
        if len(positions) < min(k, count):  # graph or lists led to too few
            every = np.ones(total, bool) if chosen is None else chosen.is_vector
            distances, positions = self._structure.scan(projected, depth(k, arguments.rerank), every)
        if arguments.rerank:
            scores = self._scores(query, distances, positions, k)
            return self._best(scores, positions[: len(scores)], k, chosen)
        return self._best(np.clip(1 - distances / 2, -1.0, 1.0), positions, k, chosen)

    def _candidates(
        self, projected: Vectors, k: int, chosen: Allowed | None, arguments: QueryArguments, plan: FilterPlan
    ) -> tuple[Vectors, Rows]:
        """Return squared distances of codes, ascending, and positions; k at least with a filter, if there are."""
        total, wanted = len(self._stored), depth(k, arguments.rerank)
        if chosen is None:
            return self._structure.candidates(projected, wanted, arguments.effort)
        if chosen.count > plan.scan_share * total:
            # The nearest of all rows, of which so many are allowed by chance. Where that many are, they are the nearest
            # allowed ones, as surely as without a filter; else the allowed ones are elsewhere.
            share = chosen.count / total
            more = (1 + SURE * math.sqrt((1 - share) / wanted)) / share
            effort, all_wanted = math.ceil(more * arguments.effort), math.ceil(more * wanted)
            distances, positions = self._structure.candidates(projected, all_wanted, effort)
            is_allowed = chosen.is_vector[positions]
            if np.count_nonzero(is_allowed) >= min(wanted, chosen.count):
                return distances[is_allowed][:wanted], positions[is_allowed][:wanted]
        wanted = depth(k, plan.rerank if arguments.rerank else 0)
        codes = chosen.codes
        if codes is None and chosen.count * FEW_SHARE < total:
            codes = self._structure.copied(chosen.positions)
        if codes is None:
            return self._structure.scan(projected, wanted, chosen.is_vector)
        distances, places = self._structure.scan_copied(projected, wanted, codes)
        return distances, chosen.positions[places]

    def _scores(self, query: Vectors, distances: Vectors, positions: Rows, k: int) -> Vectors:
        """Return the cosines of the first candidates, of as many as may be among the k best.

        Candidates come by distance of their codes, which is no more than that of their vectors. Where it is more than
        that of the kth best vector so far, no better one follows (Seidl and Kriegel 1998, "Optimal Multi-Step
        k-Nearest Neighbor Search").
        """
        first = max(FIRST_SCORED, 2 * k)
        scores = self._stored.scores(query, positions[:first])
        if len(positions) <= first:
            return scores
        if self._structure.is_lower_bound:
            kth = float(np.partition(scores, -k)[-k])
            first_hopeless = int(np.searchsorted(distances, 2 - 2 * kth + CODE_ERROR, side="right"))
            positions = positions[: max(first, first_hopeless)]
        return np.concatenate([scores, self._stored.scores(query, positions[first:])])

    def _best(self, scores: Vectors, positions: Rows, k: int, chosen: Allowed | None) -> tuple[Vectors, Rows]:
        """Return the k best rows of some vectors, whose scores these are, by score and id."""
        starts = self._places.starts
        if starts is None:
            rows = self._rows[positions]
        else:
            starts, ends = starts[positions], starts[positions + 1]
            places = np.concatenate([np.arange(*ends_of) for ends_of in zip(starts, ends, strict=True)])
            scores = np.repeat(scores, ends - starts)
            if chosen is not None:
                is_allowed = chosen.is_row[places]
                places, scores = places[is_allowed], scores[is_allowed]
            rows = self._rows[places]
        order = np.lexsort((rows, -scores))[:k]
        return scores[order], rows[order]
