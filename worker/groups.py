"""Hits in groups: at most so many of each, and as many hits as there are."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol

import numpy as np

from shared.attributes import AttributeValue, compared_text
from worker.index.vector_index import Vectors
from worker.item_index import Allowed, ItemIndex

FIRST_DEPTH = 4  # times k: how many items are looked at first
DEEPER = 4
# Items whose attributes are read for one search; where that isn't enough, full groups are left out of it, by a filter.
MOST_READ = 2000
AT_ONCE = 256  # items that are told their groups together
# Embeddings that count as equal: kept in half precision, cosines are wrong by 1.1e-4 at most (half_vectors.py).
EQUAL_COSINE = 0.9998

Found = list[tuple[int, float]]
"""Pairs of an index row and its score, by descending score; each row of another item."""


class Grouping(Protocol[Allowed]):
    """What makes items a group. For one search: it may remember what it has seen."""

    deepest: int | None
    """How many items are worth being looked at in one search; None: all that there are."""

    def groups(self, rows: Sequence[int]) -> Iterable[Hashable]:
        """Tell the group of each row's item, as far as it is asked for; rows come by descending score."""
        ...

    def without(self, full: Sequence[Hashable], allowed: Allowed | None) -> Allowed | None:
        """Return what lets through no item of some groups; `allowed` itself where that can't be told."""
        ...


def nearest_in_groups(
    search: Callable[[int, Allowed | None], Found],
    live_index: ItemIndex[Allowed],
    grouping: Grouping[Allowed],
    asked: Mapping[str, Any],
    allowed: Allowed | None,
) -> Found:
    """Return the best `k` items, at most `per_group` of each group.

    It looks deeper as long as items are missing and there may be more; not below `min_score`, except for one item that
    tells so.

    Args:
        search: gives so many of the best items that are let through, whatever their groups.
        live_index: what it searches.
        grouping: made for this search.
        asked: k, per_group and min_score.
        allowed: what a filter lets through; None means all.
    """
    k, per_group, min_score = asked["k"], asked["per_group"], asked["min_score"]
    taken: Found = []
    seen: set[str] = set()
    sizes = Counter[Hashable]()
    among, depth = allowed, FIRST_DEPTH * k
    deepest = max(depth, len(live_index) if grouping.deepest is None else grouping.deepest)
    while True:
        found = search(depth, among)
        item_ids = live_index.items_of([row for row, _ in found])
        new = [
            (hit, item_id)
            for hit, item_id in zip(found, item_ids, strict=True)
            if item_id is not None and item_id not in seen
        ]
        for start in range(0, len(new), AT_ONCE):
            some = new[start : start + AT_ONCE]
            groups = grouping.groups([row for (row, _), _ in some])
            for ((row, score), item_id), group in zip(some, groups, strict=True):
                seen.add(str(item_id))
                if sizes[group] < per_group:
                    sizes[group] += 1
                    taken.append((row, score))
                if len(taken) == k or (min_score is not None and score < min_score):
                    return _ordered(taken)
        if len(found) < depth or (not new and depth == deepest):
            return _ordered(taken)
        if depth == deepest:
            among = grouping.without([group for group, size in sizes.items() if size == per_group], allowed)
        depth = min(depth * DEEPER, deepest)


def _ordered(taken: Found) -> Found:
    # An approximate index may find deeper what it missed before.
    return sorted(taken, key=lambda hit: (-hit[1], hit[0]))


class ByAttribute(Generic[Allowed]):
    """Items with the same value of an attribute; one without it is a group of its own."""

    deepest: int | None = MOST_READ

    def __init__(self, name: str, type_: str, live_index: ItemIndex[Allowed]) -> None:
        """Args:
        name: of the attribute.
        type_: "string", "number" or "boolean", as the catalogue has it.
        live_index: tells items' attributes.
        """
        self._name = name
        self._type = type_
        self._live_index = live_index

    def groups(self, rows: Sequence[int]) -> Iterable[Hashable]:
        """See Grouping."""
        told = self._live_index.hits(rows)
        values = [told[row][0].attributes.get(self._name) if row in told else None for row in rows]
        return [("row", row) if value is None else _compared(value) for row, value in zip(rows, values, strict=True)]

    def without(self, full: Sequence[Hashable], allowed: Allowed | None) -> Allowed | None:
        """See Grouping."""
        values = [group for group in full if not isinstance(group, tuple)]
        if not values:
            return allowed
        compared = [bool(value) for value in values] if self._type == "boolean" else values
        return self._live_index.less(allowed, {self._name: {"in": compared}})


def _compared(value: AttributeValue) -> Hashable:
    """Return what filters compare of a value, so that a group is what a filter by its value finds."""
    return compared_text(value) if isinstance(value, str) else float(value)


class ByLikeness:
    """Items whose embeddings are nearly the same as that of a better one, the first of the group."""

    deepest: int | None = None

    def __init__(self, min_cosine: float, live_index: ItemIndex[Any]) -> None:
        """Args:
        min_cosine: from which an item belongs to the group of another.
        live_index: has the embeddings; an item counts by its image that was found.
        """
        self._min_cosine = min(min_cosine, EQUAL_COSINE)
        self._live_index = live_index
        self._leaders: Vectors = np.empty((0, live_index.dim), np.float32)

    def groups(self, rows: Sequence[int]) -> Iterator[Hashable]:
        """See Grouping; a group is named by the number of its first item among all such."""
        present, unordered = self._live_index.vectors(rows)
        vectors = dict(zip(present.tolist(), unordered, strict=True))
        for row in rows:
            if row not in vectors:  # it was removed meanwhile
                yield ("row", row)
                continue
            vector = vectors[row] / np.linalg.norm(vectors[row])  # half precision is not of norm 1
            # vecdot runs in this thread alone; a matrix product would wake BLAS's for a few rows.
            joined = np.flatnonzero(np.vecdot(self._leaders, vector) >= self._min_cosine)
            if len(joined):
                yield int(joined[0])
            else:
                self._leaders = np.concatenate([self._leaders, vector[None]])
                yield len(self._leaders) - 1

    def without(self, full: Sequence[Hashable], allowed: Any) -> Any:
        """See Grouping."""
        return allowed
