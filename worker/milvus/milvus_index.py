"""An index in Milvus, in step with the catalogue: what LiveIndex is with FAISS."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from redis import Redis

from shared.catalogue import Catalogue
from shared.errors import IndexUnavailable
from shared.filters import NotMet, parse_filter
from worker.hit_cache import Hit, HitCache
from worker.index.recipe import IndexRecipe
from worker.index.vector_index import Rows, Vectors, check_search
from worker.item_index import Candidate, Other, best_items
from worker.milvus.collection import MAX_DEPTH, ReleaseCollection, Row
from worker.milvus.connection import MilvusConnection
from worker.milvus.expressions import expression
from worker.milvus.item_rows import changed_items, item_rows
from worker.milvus.writer import Writer
from worker.shared_call import SharedCall

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
# Bounded reads may be 5 s old (Milvus's common.gracefulTime). For twice as long after a change they wait for all of it.
FRESH_SECONDS = 10.0
# Rows asked for beyond those wanted: if the last of them is worse than the last one wanted, no tie was cut off.
MARGIN = 8
ROUNDING = 1e-6
# How often a search looks for others in place of hits that were deleted, before it is content with fewer.
SEARCHES = 4


class MilvusIndex:
    """An ItemIndex. Searches see a change when `follow` has brought it to Milvus, a deletion when it knows of it."""

    def __init__(
        self,
        catalogue: Catalogue,
        redis: Redis,
        milvus: MilvusConnection,
        release_id: str,
        encoder_id: str,
        dim: int,
        recipe: IndexRecipe,
    ) -> None:
        """Args:
        catalogue: the items and their embeddings.
        redis: where writers take turns.
        milvus: holds the rows.
        release_id: has a collection of its own.
        encoder_id: whose embeddings to hold; of the release.
        dim: their length.
        recipe: its recall target says how thoroughly to search; the rest of it is FAISS's.
        """
        self._catalogue = catalogue
        self._encoder_id = encoder_id
        self._release_id = release_id
        self._collection = ReleaseCollection(milvus, release_id, encoder_id, dim, recipe)
        self._writer = Writer(catalogue.engine, redis, self._collection, encoder_id)
        self._hits = HitCache(catalogue.hit_rows)
        self._told_seq = 0  # up to which hits are forgotten if their item has changed
        self._seq = -1
        self._changed_at = 0.0
        self._is_away = False  # Milvus, as far as is known
        self._shared_follow = SharedCall(self._follow)

    def open(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Make the collection if need be, and wait until it holds all that the catalogue has now.

        Args:
            meanwhile: called about every second, while that takes longer.

        Raises:
            IndexUnavailable: if Milvus can't be reached.
            ForeignCollection: if the collection holds another encoder's vectors.
        """
        while not self._writer.create():
            meanwhile()
            time.sleep(POLL_SECONDS)  # another process makes it
        self._collection.open()
        state = self._catalogue.state()
        reached = -1
        while (now_at := self.follow()) < state.seq:
            meanwhile()
            if now_at == reached:
                time.sleep(POLL_SECONDS)  # another process fills it
            reached = now_at
        if state.release_id == self._release_id:
            self._collection.point_alias()

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._collection.dim

    @property
    def is_exact(self) -> bool:
        """Whether Milvus compares with all rows."""
        return self._collection.is_exact

    def __len__(self) -> int:
        """Return the number of rows, which Milvus counts now."""
        return len(self._collection)

    def refresh(self) -> int:
        """Return the seq that Milvus was brought to; searches leave the writing to `follow`."""
        return self._seq

    def follow(self) -> int:
        """Apply what is committed; see ItemIndex.follow."""
        return self._shared_follow()

    def _follow(self) -> int:
        if self._is_away:
            self._collection.open()  # which a server that was restarted may not have done by itself
            self._is_away = False
        state = self._catalogue.state()
        self._forget(state.seq, state.purged_seq)
        with self._noticing():
            reached = self._writer.bring_to(state) if state.seq != self._seq else self._seq
        if reached != self._seq:
            self._changed_at = time.monotonic()  # before a search may take the seq for granted
            self._seq = reached
        return reached

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        try:
            yield
        except IndexUnavailable:
            self._is_away = True
            raise

    def _forget(self, seq: int, purged_seq: int) -> None:
        """Drop what is kept of items that have changed: the database tells anew what became of them."""
        if seq < self._told_seq or purged_seq > self._told_seq:
            self._hits.clear()
        elif self._told_seq:
            for item_ids, _ in changed_items(self._catalogue.engine, self._told_seq, seq):
                self._hits.forget(item_ids)
        self._told_seq = seq

    def allowed(self, condition: Mapping[str, Any] | None) -> str | None:
        """Return a filter as Milvus's expression; see ItemIndex.allowed."""
        if not condition:
            return None
        return expression(parse_filter(condition, self._catalogue.attribute_types()))

    def less(self, allowed: str | None, condition: Mapping[str, Any]) -> str:
        """Return an expression for what is left; see ItemIndex.less."""
        left = expression(NotMet(parse_filter(condition, self._catalogue.attribute_types())))
        return left if allowed is None else f"({allowed}) and ({left})"

    def hits(self, rows: Sequence[int]) -> dict[int, Hit]:
        """Return what a result tells of each index row; see ItemIndex.hits."""
        return self._hits.get(rows)

    def items_of(self, rows: Sequence[int]) -> list[str | None]:
        """Return the item of each row, as the database has it; see ItemIndex.items_of."""
        told = self.hits(rows)
        return [told[row][0].item_id if row in told else None for row in rows]

    def vectors(self, rows: Sequence[int]) -> tuple[Rows, Vectors]:
        """Return the embeddings of rows; see ItemIndex.vectors."""
        with self._noticing():
            found = self._collection.vectors(rows)
        vectors = np.stack(list(found.values())) if found else np.empty((0, self.dim), np.float32)
        return np.array(list(found), np.int64), vectors

    def images_of(self, item_ids: Sequence[str]) -> tuple[list[str], Vectors]:
        """Return the embeddings of all images of some items, as the database has them; see ItemIndex.images_of."""
        found = item_rows(self._catalogue.engine, self._encoder_id, self.dim, item_ids).values()
        vectors = np.stack([row.vector for row in found]) if found else np.empty((0, self.dim), np.float32)
        return [row.item_id for row in found], vectors

    def nearest_others(self, owners: Sequence[str], queries: Vectors) -> list[Other | None]:
        """Find for each image the most similar one of another item; see ItemIndex.nearest_others."""
        step = self._collection.vectors_at_once
        parts = [slice(start, start + step) for start in range(0, len(queries), step)]
        return [other for some in parts for other in self._others(owners[some], queries[some])]

    def _others(self, owners: Sequence[str], queries: Vectors) -> list[Other | None]:
        depth = 1 + MARGIN
        while True:
            with self._noticing():
                found = self._collection.search(queries, depth, "", self._is_fresh())
            told = self.hits([row for rows in found for row, _, _ in rows])
            others = [
                next(((item, score) for row, score, item in rows if item != owner and row in told), None)
                for owner, rows in zip(owners, found, strict=True)
            ]
            is_over = [other is not None or len(rows) < depth for other, rows in zip(others, found, strict=True)]
            if all(is_over) or depth == MAX_DEPTH:
                return others
            depth = min(4 * depth, MAX_DEPTH)  # an item has many images, or many rows are gone

    def nearest_items(
        self, queries: Vectors, k: int, allowed: str | None = None, without: str | None = None
    ) -> list[tuple[int, float]]:
        """Find the items most similar to any of the queries; see ItemIndex.nearest_items.

        Raises:
            IndexUnavailable: if Milvus can't be reached.
        """
        check_search(queries, k, self._collection.dim)
        gone: set[int] = set()
        for _ in range(SEARCHES):
            nearest = best_items(lambda depth: self._found(queries, depth, allowed, gone), k, without)
            told = self.hits([row for row, _ in nearest])
            if len(told) == len(nearest):
                break
            # Milvus has not seen yet that these are deleted: others take their places.
            gone.update(row for row, _ in nearest if row not in told)
        return [(row, score) for row, score in nearest if row in told]

    def _found(self, queries: Vectors, depth: int, allowed: str | None, gone: set[int]) -> list[list[Candidate]]:
        """Return the best `depth` rows of each query that are not gone, ties by row."""
        asked = depth + len(gone)
        while True:
            asked = min(asked + MARGIN, MAX_DEPTH)
            with self._noticing():
                found = self._collection.search(queries, asked, allowed or "", self._is_fresh())
            kept = [[row for row in rows if row[0] not in gone] for rows in found]
            if asked == MAX_DEPTH or not any(
                len(rows) == asked and _ties_are_cut(some, depth) for rows, some in zip(found, kept, strict=True)
            ):
                return [list(rows[:depth]) for rows in kept]
            asked *= 4  # many rows are alike here, such as one image that many items show

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._changed_at < FRESH_SECONDS


def _ties_are_cut(rows: Sequence[Row], depth: int) -> bool:
    """Tell whether rows that were not returned may be as good as the last of the first `depth`."""
    return len(rows) >= depth and rows[depth - 1][1] <= rows[-1][1] + ROUNDING
