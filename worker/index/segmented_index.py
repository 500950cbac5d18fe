"""An immutable base of any kind, an exact index of what was added since, and the base's rows that are gone."""

from dataclasses import dataclass, replace
from threading import Lock

import numpy as np

from worker.index.vector_index import (
    Neighbours,
    ReadableIndex,
    Rows,
    VectorIndex,
    Vectors,
    check_search,
    in_order,
    membership,
    no_neighbours,
)

SPARE_ROWS = 8  # searched for beyond k where rows of the base are gone


@dataclass(frozen=True)
class _Segments:
    """What a search works with from beginning to end.

    Attributes:
        base: never changed.
        delta: changed in place.
        tombstones: int64 (t,), the base's rows that are gone.
    """

    base: ReadableIndex
    delta: VectorIndex
    tombstones: Rows

    def __len__(self) -> int:
        return len(self.base) - len(self.tombstones) + len(self.delta)


class SegmentedIndex:
    """A VectorIndex; searches read its segments at one moment, so a change of base is never seen half done."""

    def __init__(self, base: ReadableIndex, delta: VectorIndex) -> None:
        self._segments = _Segments(base, delta, np.empty(0, np.int64))
        self._changing = Lock()

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._segments.delta.dim

    @property
    def rows(self) -> Rows:
        """All rows, int64 (n,)."""
        now = self._segments
        return np.concatenate([now.base.rows[~membership(now.base.rows, now.tombstones)], now.delta.rows])

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._segments)

    @property
    def changes(self) -> int:
        """How many rows were added to the base or removed from it: what searches pay for."""
        return len(self._segments.delta) + len(self._segments.tombstones)

    @property
    def is_exact(self) -> bool:
        """Whether it compares with all rows of the base; it does with those of the delta."""
        return self._segments.base.is_exact

    def add(self, rows: Rows, vectors: Vectors) -> None:
        """Add rows; see VectorIndex.add."""
        with self._changing:
            self._segments.delta.add(rows, vectors)

    def remove(self, rows: Rows) -> int:
        """Remove rows; see VectorIndex.remove."""
        with self._changing:
            now = self._segments
            before = len(now)
            now.delta.remove(rows)
            gone = now.base.rows[membership(now.base.rows, rows)]
            if len(gone):
                self._segments = replace(now, tombstones=np.union1d(now.tombstones, gone))
            return before - len(self._segments)

    def vectors(self, rows: Rows) -> tuple[Rows, Vectors]:
        """Return rows that are here, and their vectors; see ReadableIndex.vectors."""
        now = self._segments
        base = now.base.vectors(rows[~membership(rows, now.tombstones)])
        delta = now.delta.vectors(rows)
        return np.concatenate([base[0], delta[0]]), np.concatenate([base[1], delta[1]])

    def restart(self, base: ReadableIndex, delta: VectorIndex) -> None:
        """Take a base and an empty delta in place of all that is here."""
        with self._changing:
            self._segments = _Segments(base, delta, np.empty(0, np.int64))

    def rebase(self, base: ReadableIndex, delta: VectorIndex) -> None:
        """Take another base and an empty delta; no row comes or goes by that.

        A row that is here and in the new base must have the same vector there.
        """
        with self._changing:
            present = self.rows
            delta.add(*self.vectors(present[~membership(present, base.rows)]))
            gone = base.rows[~membership(base.rows, present)]
            self._segments = _Segments(base, delta, gone)

    def search(self, queries: Vectors, k: int, allowed: Rows | None = None) -> Neighbours:
        """Find the k most similar rows for each query; see ReadableIndex.search."""
        check_search(queries, k, self.dim)
        now = self._segments
        delta = now.delta.search(queries, k, allowed) if len(now.delta) else no_neighbours(len(queries))
        if len(now.base) == len(now.tombstones):
            return delta
        if allowed is not None:
            live = allowed[~membership(allowed, now.tombstones)] if len(now.tombstones) else allowed
            base = now.base.search(queries, k, live)
        elif len(now.tombstones):
            base = _search_live(now, queries, k)
        else:
            base = now.base.search(queries, k)
        if not delta.rows.shape[1]:
            return base
        return in_order(np.hstack([base.scores, delta.scores]), np.hstack([base.rows, delta.rows]), k)


def _search_live(now: _Segments, queries: Vectors, k: int) -> Neighbours:
    """Search the base for its live rows: for as many more as are likely gone, and for yet more where that falls short.

    A filter would do the same, but takes from the base the faster ways that it may have for searching all its rows.
    """
    wanted = min(k, len(now.base) - len(now.tombstones))
    depth = k + SPARE_ROWS + 2 * k * len(now.tombstones) // len(now.base)
    while True:
        found = now.base.search(queries, depth)
        is_live = ~membership(found.rows, now.tombstones)
        if depth >= len(now.base) or is_live.sum(axis=1).min(initial=wanted) >= wanted:
            break
        depth *= 4
    live_first = np.argsort(~is_live, axis=1, kind="stable")[:, :wanted]
    return Neighbours(
        np.take_along_axis(found.scores, live_first, axis=1), np.take_along_axis(found.rows, live_first, axis=1)
    )
