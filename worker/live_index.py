"""The index in step with the catalogue: what was committed is found, what was deleted is gone."""

import logging
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from shared.catalogue import Catalogue, IndexedItem
from worker.hit_cache import Hit, HitCache
from worker.index import VectorIndex
from worker.index.flat_index import FlatIndex
from worker.index.segmented_index import SegmentedIndex
from worker.index.shared_searches import SharedSearches
from worker.index.snapshot import Snapshots
from worker.index.vector_index import Rows, Vectors
from worker.index_keeper import IndexKeeper, Restored
from worker.indexed_images import IndexedImages
from worker.shared_call import SharedCall

log = logging.getLogger(__name__)

PAGE = 1000  # embeddings read at once


class LiveIndex:
    """An index that follows the catalogue's changes, for one encoder.

    Every search first asks for the catalogue's seq (one read of one row, shared by all that ask at the same time) and
    applies what is new; a thread does the same in the background, so that little is left for the search to do.
    """

    def __init__(
        self, catalogue: Catalogue, index: VectorIndex, encoder_id: str, snapshot_folder: Path | None = None
    ) -> None:
        """Args:
        catalogue: the items and their embeddings.
        index: empty, exact; takes what is not in a snapshot.
        encoder_id: whose embeddings to hold.
        snapshot_folder: where to keep the index from one process to the next; None keeps it nowhere.
        """
        self._catalogue = catalogue
        self._encoder_id = encoder_id
        self._images = IndexedImages(catalogue.engine)
        self._index = SegmentedIndex(FlatIndex(index.dim), index)
        self._searches = SharedSearches(self._index)
        self._hits = HitCache(catalogue.hit_rows)
        self._keeper: IndexKeeper | None = None
        if snapshot_folder is not None:
            snapshots = Snapshots(snapshot_folder, encoder_id, index.dim)
            self._keeper = IndexKeeper(self._index, self._images, snapshots)
        self._is_new = True
        self._seq = 0
        self._release_id: str | None = None
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
    def release_id(self) -> str | None:
        """The active release, as the last refresh read it."""
        return self._release_id

    def refresh(self) -> int:
        """Apply all changes that are committed, and return the catalogue's seq that the index is at.

        Threads that call it at the same time share one reading, which begins after each of them has called.
        """
        return self._shared_refresh()

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
        self._release_id = state.release_id
        if self._keeper:
            self._keeper.keep(self._changed_at)
        return self._seq

    def _take(self, restored: Restored) -> None:
        """Begin with what a snapshot held, and read what it lacks."""
        self._own(restored.owners)
        missing = iter(restored.missing.items())
        while page := dict(islice(missing, PAGE)):
            vectors = self._catalogue.embeddings(self._encoder_id, [sha256 for _, sha256 in page.values()])
            embedded = {row: vectors[sha256] for row, (_, sha256) in page.items() if sha256 in vectors}
            self._add(embedded)
            self._own({row: page[row][0] for row in embedded})

    def _remove_absent(self) -> None:
        """Remove what the catalogue has no more, where tombstones above our seq were purged: nothing else tells."""
        present = {row for images in self._images.pages() for row in images.rows.tolist()}
        absent = [row for row in self._item_of if row not in present]
        for row in absent:
            rows = self._rows_of[self._item_of[row]]
            rows.remove(row)
            if not rows:
                del self._rows_of[self._item_of[row]]
        self._remove(absent)
        self._hits.clear()

    def _own(self, owners: dict[int, str]) -> None:
        self._item_of.update(owners)
        for row, item_id in owners.items():
            self._rows_of.setdefault(item_id, set()).add(row)

    def _apply(self, items: list[IndexedItem]) -> None:
        """Bring some items up to date. A row never changes its embedding, so only its coming and going counts.

        What comes is added before what goes is removed: a search meanwhile misses no item.
        """
        added: dict[int, bytes] = {}
        removed: list[int] = []
        for item in items:
            wanted, present = dict(item.rows), self._rows_of.pop(item.item_id, set())
            added.update({row: vector for row, vector in wanted.items() if row not in present})
            removed += present - wanted.keys()
            if wanted:
                self._rows_of[item.item_id] = set(wanted)
                self._item_of.update(dict.fromkeys(wanted, item.item_id))
        self._add(added)
        self._remove(removed)
        self._hits.forget(item.item_id for item in items)

    def _add(self, added: dict[int, bytes]) -> None:
        if added:
            vectors = np.stack([np.frombuffer(vector, dtype="<f4") for vector in added.values()])  # (n, dim)
            self._index.add(np.array(list(added), dtype=np.int64), vectors.astype(np.float32, copy=False))

    def _remove(self, rows: list[int]) -> None:
        self._index.remove(np.array(rows, dtype=np.int64))
        for row in rows:
            self._item_of.pop(row, None)

    def hits(self, rows: Sequence[int]) -> dict[int, Hit]:
        """Return what a result tells of each index row, with the link of its image; gone rows are left out.

        It tells what was committed before the last refresh, or later. Not to be modified.
        """
        return self._hits.get(rows)

    def nearest_items(
        self, queries: Vectors, k: int, allowed: Rows | None = None, without: str | None = None
    ) -> list[tuple[int, float]]:
        """Find the items most similar to any of the queries, each by its best image.

        Args:
            queries: float32 (n, dim), rows of L2 norm 1: several images of one thing.
            k: wanted items, >= 1.
            allowed: rows that a filter lets through; None means all.
            without: an item to leave out.

        Returns:
            At most k pairs of an index row and its score, by descending score, ties by row.
        """
        wanted = k + (without is not None)
        depth = wanted * 2
        while True:
            neighbours = self._searches.search(queries, depth, allowed)
            # A query that saw fewer items may hide better ones than those that another query saw.
            fewest = min((self._count_items(rows) for rows in neighbours.rows.tolist()), default=0)
            if fewest >= wanted or neighbours.rows.shape[1] < depth:
                break
            depth *= 4  # many images belong to the same few items: look further
        best = self._best_by_item(neighbours.rows.ravel(), neighbours.scores.ravel())
        best.pop(without or "", None)
        return sorted(best.values(), key=lambda hit: (-hit[1], hit[0]))[:k]

    def _count_items(self, rows: list[int]) -> int:
        return len({self._item_of.get(row) for row in rows} - {None})

    def _best_by_item(self, rows: Rows, scores: Vectors) -> dict[str, tuple[int, float]]:
        best: dict[str, tuple[int, float]] = {}
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
            item_id = self._item_of.get(row)
            if item_id is not None and (item_id not in best or score > best[item_id][1]):
                best[item_id] = (row, score)
        return best
