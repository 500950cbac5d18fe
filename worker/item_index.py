"""What an engine asks of an index that follows the catalogue, whatever it is made of."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from worker.hit_cache import Hit
from worker.index.vector_index import Vectors

Allowed = TypeVar("Allowed")
Candidate = tuple[int, float, str | None]
"""A row, its score, and its item; None where the row is gone meanwhile."""


class ItemIndex(Protocol[Allowed]):
    """Finds items by their images. Threads share it.

    `Allowed` is what a filter becomes: the rows that it lets through, or an expression that says the same.
    """

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def refresh(self) -> int:
        """Return the catalogue's seq that a search sees which begins now."""
        ...

    def follow(self) -> int:
        """Apply what is committed, as far as no other process is at it, and return the seq that was reached.

        One thread of a worker calls it all the time.
        """
        ...

    def allowed(self, condition: Mapping[str, Any] | None) -> Allowed | None:
        """Return what to hand to `nearest_items` for a filter; None, which lets all through, where there is none.

        Raises:
            InvalidRequest: if the filter is not valid, or not any more.
        """
        ...

    def nearest_items(
        self, queries: Vectors, k: int, allowed: Allowed | None = None, without: str | None = None
    ) -> list[tuple[int, float]]:
        """Find the items most similar to any of the queries, each by its best image.

        Args:
            queries: float32 (n, dim), rows of L2 norm 1: several images of one thing.
            k: wanted items, >= 1.
            allowed: what a filter lets through; None means all.
            without: an item to leave out.

        Returns:
            At most k pairs of an index row and its score, by descending score, ties by row.
        """
        ...

    def hits(self, rows: Sequence[int]) -> dict[int, Hit]:
        """Return what a result tells of each index row, with the link of its image; gone rows are left out.

        It tells what was committed before the last refresh, or later. Not to be modified.
        """
        ...


def best_items(
    search: Callable[[int], Sequence[Sequence[Candidate]]], k: int, without: str | None = None
) -> list[tuple[int, float]]:
    """Rank items by their best image; arguments and answer are those of `ItemIndex.nearest_items`.

    Args:
        search: returns for each query the nearest rows, so many of them or all that there are.
        k: wanted items.
        without: an item to leave out.
    """
    wanted = k + (without is not None)
    depth = wanted * 2
    while True:
        found = search(depth)
        # A query that saw fewer items may hide better ones than those that another query saw.
        fewest = min((len({item_id for _, _, item_id in each} - {None}) for each in found), default=0)
        if fewest >= wanted or all(len(each) < depth for each in found):
            break
        depth *= 4  # many images belong to the same few items: look further
    best: dict[str, tuple[int, float]] = {}
    for each in found:
        for row, score, item_id in each:
            if item_id is not None and (item_id not in best or score > best[item_id][1]):
                best[item_id] = row, score
    best.pop(without or "", None)
    return sorted(best.values(), key=lambda hit: (-hit[1], hit[0]))[:k]
