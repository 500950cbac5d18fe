"""The index in step with the catalogue: what was committed is found, what was deleted is gone."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from shared.catalogue import Catalogue, IndexedItem
from worker.closest_others import closest_by_products, closest_by_search
from worker.filtered_rows import FilteredRows
from worker.hit_cache import Hit, HitCache
from worker.index import VectorIndex
from worker.index.flat_index import FlatIndex
from worker.index.segmented_index import SegmentedIndex
from worker.index.shared_searches import SharedSearches
from worker.index.snapshot import Snapshots
from worker.index.vector_index import Rows, Vectors, check_vectors, membership
from worker.index_keeper import IndexKeeper, Restored
from worker.indexed_images import IndexedImages
from worker.item_index import Candidate, Other, best_items
from worker.shared_call import SharedCall

log = logging.getLogger(__name__)

PAGE = 1000  # embeddings read at once
SEARCHES = 3  # of one query, where the index changes while it is searched


class LiveIndex:
    """An index that follows the catalogue's changes, for one encoder.

    Every search first asks for the catalogue's seq (one read of one row, shared by all that ask at the same time) and
    applies what is new; a thread does the same in the background, so that little is left for the search to do.
    """

    def __init__(
        self, catalogue: Catalogue, index: VectorIndex, encoder_id: str, snapshots: Snapshots | None = None
    ) -> None:
        """Args:
        catalogue: the items and their embeddings.
        index: empty, exact; takes what is not in a snapshot.
        encoder_id: whose embeddings to hold.
        snapshots: where to keep the index from one process to the next, and what its base is to be; None keeps it
            nowhere, with an exact base.
        """
        self._catalogue = catalogue
        self._encoder_id = encoder_id
        self._images = IndexedImages(catalogue.engine)
        self._index = SegmentedIndex(FlatIndex(index.dim), index)
        self._searches = SharedSearches(self._index)
        self._hits = HitCache(catalogue.hit_rows)
        self._filtered = FilteredRows(catalogue)
        self._keeper: IndexKeeper | None = None
        if snapshots is not None:
            self._keeper = IndexKeeper(self._index, self._images, snapshots)
        self._is_new = True
        self._seq = 0
        self._changed_at = time.monotonic()
        self._rows_of: dict[str, set[int]] = {}
        self._item_of: dict[int, str] = {}
        self._shared_refresh = SharedCall(self._refresh)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._index)

    @property
    def index(self) -> SegmentedIndex:
        """The rows, without their items."""
        return self._index

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._index.dim

    @property
    def is_exact(self) -> bool:
        """Whether a search compares with all rows."""
        return self._index.is_exact

    def refresh(self) -> int:
        """Apply all changes that are committed, and return the catalogue's seq that the index is at.

        Threads that call it at the same time share one reading, which begins after each of them has called.
        """
        return self._shared_refresh()

    def follow(self) -> int:
        """The same: what a search would apply is applied before it comes; see ItemIndex.follow."""
        return self.refresh()

    def _refresh(self) -> int:
        state = self._images.state()
        if self._is_new:
            self._is_new = False
            if self._keeper and (restored := self._keeper.restore()):
                self._take(restored)
                self._seq = state.seq
        if state.purged_seq > self._seq and self._rows_of:
            self._remove_absent()
            state = self._images.state()  # what was replaced while the images were read is to be found again
        if state.seq > self._seq:
            for items in self._catalogue.changed_items(self._encoder_id, self._seq, state.seq):
                self._apply(items)
            self._seq = state.seq
            self._changed_at = time.monotonic()
        if self._keeper:
            self._keeper.keep(self._changed_at)
        return self._seq

    def _take(self, restored: Restored) -> None:
        """Begin with what a snapshot held, and read what it lacks."""
        self._own(restored.owners)
        missing = iter(restored.missing.items())
        while page := dict(islice(missing, PAGE)):
            vectors = self._catalogue.embeddings(self._encoder_id, [sha256 for _, sha256 in page.values()])
            self._add({row: (item, vectors[sha256]) for row, (item, sha256) in page.items() if sha256 in vectors})

    def _remove_absent(self) -> None:
        """Remove what the catalogue has no more, where tombstones above our seq were purged: nothing else tells."""
        present = {row for images in self._images.pages() for row in images.rows.tolist()}
        self._remove([row for row in self._item_of if row not in present])
        self._hits.clear()

    def _own(self, owners: dict[int, str]) -> None:
        self._item_of.update(owners)
        for row, item_id in owners.items():
            self._rows_of.setdefault(item_id, set()).add(row)

    def _apply(self, items: list[IndexedItem]) -> None:
        """Bring some items up to date. A row never changes its embedding, so only its coming and going counts.

        What comes is added before what goes is removed: a search meanwhile misses no item. What fails may be done
        again: the index then holds what our dictionaries tell.
        """
        added: dict[int, tuple[str, bytes]] = {}
        removed: list[int] = []
        for item in items:
            wanted, present = dict(item.rows), self._rows_of.get(item.item_id, set())
            added.update({row: (item.item_id, vector) for row, vector in wanted.items() if row not in present})
            removed += present - wanted.keys()
        self._add(added)
        self._remove(removed)
        self._hits.forget(item.item_id for item in items)

    def _add(self, added: Mapping[int, tuple[str, bytes]]) -> None:
        """Add rows, each with its item and its embedding; an embedding that can't be searched is left out."""
        try:
            vectors = self._vectors(vector for _, vector in added.values())
        except ValueError:
            added = {row: found for row, found in added.items() if self._is_usable(row, *found)}
            vectors = self._vectors(vector for _, vector in added.values())
        owners = {row: item_id for row, (item_id, _) in added.items()}
        self._item_of.update(owners)  # before a search may find the rows
        try:
            self._index.add(np.array(list(owners), dtype=np.int64), vectors)
        except BaseException:
            for row in owners:
                del self._item_of[row]
            raise
        self._own(owners)

    def _vectors(self, embeddings: Iterable[bytes]) -> Vectors:
        """Return float32 (n, dim) of embeddings as the catalogue keeps them.

        Raises:
            ValueError: if one of them is not of this length, or not of L2 norm 1.
        """
        each = [np.frombuffer(embedding, dtype="<f4") for embedding in embeddings]
        vectors = np.stack(each).astype(np.float32, copy=False) if each else np.empty((0, self._index.dim), np.float32)
        check_vectors(vectors, self._index.dim)
        return vectors

    def _is_usable(self, row: int, item_id: str, embedding: bytes) -> bool:
        try:
            self._vectors([embedding])
        except ValueError as error:
            log.warning("Image %d of item %r can't be searched, its embedding is unusable: %s", row, item_id, error)
            return False
        return True

    def _remove(self, rows: list[int]) -> None:
        self._index.remove(np.array(rows, dtype=np.int64))
        for row in rows:
            item_id = self._item_of.pop(row)
            self._rows_of[item_id].remove(row)
            if not self._rows_of[item_id]:
                del self._rows_of[item_id]

    def hits(self, rows: Sequence[int]) -> dict[int, Hit]:
        """Return what a result tells of each index row; see ItemIndex.hits."""
        return self._hits.get(rows)

    def allowed(self, condition: Mapping[str, Any] | None) -> Rows | None:
        """Return the rows that a filter lets through, int64 (n,), not to be modified; see ItemIndex.allowed."""
        return self._filtered.get(condition, self._seq) if condition else None

    def less(self, allowed: Rows | None, condition: Mapping[str, Any]) -> Rows:
        """Return the rows that are left, int64 (n,); see ItemIndex.less."""
        every = self._index.rows if allowed is None else allowed
        left: Rows = every[~membership(every, self._filtered.get(condition, self._seq))]
        return left

    def items_of(self, rows: Sequence[int]) -> list[str | None]:
        """Return the item of each row; see ItemIndex.items_of."""
        return [self._item_of.get(row) for row in rows]

    def vectors(self, rows: Sequence[int]) -> tuple[Rows, Vectors]:
        """Return the embeddings of rows; see ItemIndex.vectors."""
        return self._index.vectors(np.array(rows, dtype=np.int64))

    def images_of(self, item_ids: Sequence[str]) -> tuple[list[str], Vectors]:
        """Return the embeddings of all images of some items; see ItemIndex.images_of."""
        wanted = [row for item_id in item_ids for row in self._rows_of.get(item_id, ())]
        rows, vectors = self.vectors(wanted)
        owners = self.items_of(rows.tolist())
        is_there = [owner is not None for owner in owners]
        return [owner for owner in owners if owner is not None], vectors[is_there]

    def nearest_others(self, owners: Sequence[str], queries: Vectors) -> list[Other | None]:
        """Find for each image of an item the most similar one of another item; see ItemIndex.nearest_others."""
        if self._index.is_exact:
            return closest_by_products(self._index, owners, queries, self.items_of)
        own_rows = max((len(self._rows_of.get(owner, ())) for owner in owners), default=0)
        return closest_by_search(self._index, owners, queries, self.items_of, own_rows)

    def nearest_items(
        self, queries: Vectors, k: int, allowed: Rows | None = None, without: str | None = None
    ) -> list[tuple[int, float]]:
        """Find the items most similar to any of the queries; see ItemIndex.nearest_items."""
        again = SEARCHES - 1

        def search(depth: int) -> list[list[Candidate]]:
            nonlocal again
            while True:
                neighbours = self._searches.search(queries, depth, allowed)
                pairs = zip(neighbours.rows.tolist(), neighbours.scores.tolist(), strict=True)
                found = [
                    [(row, score, self._item_of.get(row)) for row, score in zip(rows, scores, strict=True)]
                    for rows, scores in pairs
                ]
                if not again or all(item_id is not None for each in found for _, _, item_id in each):
                    return found
                again -= 1  # a row was removed meanwhile: its item may have another one now

        return best_items(search, k, without)
