"""The index in step with the catalogue: what was committed is found, what was deleted is gone."""

import logging
from threading import Event, Lock, Thread

import numpy as np
from sqlalchemy.exc import SQLAlchemyError

from shared.catalogue import Catalogue, IndexedItem
from worker.index import VectorIndex
from worker.index.vector_index import Rows, Vectors

log = logging.getLogger(__name__)


class LiveIndex:
    """An index that follows the catalogue's changes, for one encoder.

    Every search first asks for the catalogue's seq (one read of one row) and applies what is new; a thread does
    the same in the background, so that little is left for the search to do.
    """

    def __init__(self, catalogue: Catalogue, index: VectorIndex, encoder_id: str) -> None:
        self._catalogue = catalogue
        self._index = index
        self._encoder_id = encoder_id
        self._seq = 0
        self._rows_of: dict[str, set[int]] = {}
        self._item_of: dict[int, str] = {}
        self._refreshing = Lock()

    @property
    def index(self) -> VectorIndex:
        """The index itself, for searching."""
        return self._index

    def refresh(self) -> int:
        """Apply all changes that are committed, and return the catalogue's seq that the index is at."""
        with self._refreshing:
            state = self._catalogue.state()
            # Tombstones above our seq may have been purged: what they would have removed is unknown, so start anew.
            if state.purged_seq > self._seq and self._rows_of:
                self._remove(list(self._item_of))
                self._rows_of.clear()
                self._seq = 0
            if state.seq > self._seq:
                for items in self._catalogue.changed_items(self._encoder_id, self._seq, state.seq):
                    self._apply(items)
                self._seq = state.seq
            return self._seq

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
        if added:
            vectors = np.stack([np.frombuffer(vector, dtype="<f4") for vector in added.values()])  # (n, dim)
            self._index.add(np.array(list(added), dtype=np.int64), vectors.astype(np.float32, copy=False))
        self._remove(removed)

    def _remove(self, rows: list[int]) -> None:
        self._index.remove(np.array(rows, dtype=np.int64))
        for row in rows:
            self._item_of.pop(row, None)

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
            neighbours = self._index.search(queries, depth, allowed)
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

    def follow(self, interval_seconds: float, stopped: Event) -> Thread:
        """Refresh in the background until `stopped` is set; what fails is logged and tried again."""

        def loop() -> None:
            while not stopped.wait(interval_seconds):
                try:
                    self.refresh()
                except (SQLAlchemyError, ValueError) as error:
                    log.warning("The index can't follow the catalogue: %s", error)

        thread = Thread(target=loop, name="follow-catalogue", daemon=True)
        thread.start()
        return thread
