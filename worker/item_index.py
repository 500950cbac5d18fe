"""What an engine asks of an index that follows the catalogue, whatever it is made of."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from worker.hit_cache import Hit
from worker.index.vector_index import Rows, Vectors

Allowed = TypeVar("Allowed")
Candidate = tuple[int, float, str | None]
"""A row, its score, and its item; None where the row is gone meanwhile."""
Other = tuple[str, float]
"""An item, and the cosine."""


class ItemIndex(Protocol[Allowed]):
    """Finds items by their images. Threads share it.

    `Allowed` is what a filter becomes: the rows that it lets through, or an expression that says the same.
    """

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        ...

    @property
    def is_exact(self) -> bool:
        """Whether a search compares with all rows."""
        ...

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

    def less(self, allowed: Allowed | None, condition: Mapping[str, Any]) -> Allowed:
        """Return what lets through what `allowed` does, but for items that meet a filter; None lets all through."""
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

    def items_of(self, rows: Sequence[int]) -> list[str | None]:
        """Return the item of each row; None where the row is gone."""
        ...

    def vectors(self, rows: Sequence[int]) -> tuple[Rows, Vectors]:
        """Return those of some rows that are there, int64 (m,), and their embeddings, float32 (m, dim).

        Kept in half precision, they may be of another norm than 1.
        """
        ...

    def images_of(self, item_ids: Sequence[str]) -> tuple[list[str], Vectors]:
        """Return the embeddings of all images of some items, float32 (n, dim), and n ids: whose they are."""
        ...

    def nearest_others(self, owners: Sequence[str], queries: Vectors) -> list[Other | None]:
        """Find for each image of an item the most similar one of another item; many cost little more than one.

        Args:
            owners: n ids, whose each image is; an image's owner may have other images in the index.
            queries: float32 (n, dim), rows of L2 norm 1.

        Returns:
            The other item and the score; None where there is no other item.
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
