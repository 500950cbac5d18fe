"""An index kept on disk, so that a new process need not read all embeddings from the database."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Thread

import numpy as np
from sqlalchemy.exc import SQLAlchemyError

from worker.index.flat_index import FlatIndex
from worker.index.segmented_index import SegmentedIndex
from worker.index.snapshot import Hashes, Snapshots
from worker.index.vector_index import Rows, Vectors
from worker.indexed_images import IndexedImages

log = logging.getLogger(__name__)

# A snapshot is due when so many rows, and such a share of all, were added to the last one or removed from it.
DUE_ROWS, DUE_SHARE = 1000, 0.1
# While changes go on it waits for a pause, or for this share: else an import would write each tenth anew.
PAUSE_SECONDS, DUE_SHARE_AT_ONCE = 5.0, 0.5
BETWEEN_SECONDS = 30.0
# Of a snapshot's rows, the catalogue must still have this share; else it was another catalogue's.
FEWEST_KNOWN = 0.5


@dataclass(frozen=True)
class Restored:
    """What a snapshot held of the catalogue.

    Attributes:
        owners: the rows that are in the index now, and their items.
        missing: the rows of the catalogue's other images, with item and SHA-256.
    """

    owners: dict[int, str]
    missing: dict[int, tuple[str, str]]


class IndexKeeper:
    """Fills an index from its newest snapshot, and writes another one when it has changed enough."""

    def __init__(self, index: SegmentedIndex, images: IndexedImages, snapshots: Snapshots) -> None:
        self._index = index
        self._images = images
        self._snapshots = snapshots
        self._writing: Thread | None = None
        self._next_at = 0.0

    def restore(self) -> Restored | None:
        """Fill the index, which must be empty, from a snapshot; None where there is none that fits.

        The catalogue says which rows there are. A row of the same image's hash has the same embedding, whatever
        happened to the catalogue since, or to its database: a snapshot needs no history, and none can mislead it.
        """
        snapshot = self._snapshots.newest()
        if snapshot is None or len(snapshot.index) == 0:
            return None
        order = np.argsort(snapshot.index.rows)
        rows, hashes = snapshot.index.rows[order], snapshot.hashes[order]
        restored = Restored({}, {})
        for images in self._images.pages():
            places = np.searchsorted(rows, images.rows).clip(max=len(rows) - 1)
            is_known = (rows[places] == images.rows) & (hashes[places] == images.hashes).all(axis=1)  # (n,)
            for known, row, item_id, sha256 in zip(
                is_known.tolist(), images.rows.tolist(), images.item_ids, images.hashes, strict=True
            ):
                if known:
                    restored.owners[row] = item_id
                else:
                    restored.missing[row] = (item_id, sha256.tobytes().hex())
        if len(restored.owners) < FEWEST_KNOWN * len(rows):
            log.warning("The index snapshot holds little of this catalogue; the index is filled from the database")
            return None
        self._index.restart(snapshot.index, FlatIndex(self._index.dim))
        self._index.remove(np.setdiff1d(rows, np.fromiter(restored.owners, np.int64)))
        return restored

    def keep(self, changed_at: float) -> None:
        """Write a snapshot in the background, if one is due.

        Args:
            changed_at: when the index was last changed, by `time.monotonic`.
        """
        now, changes, size = time.monotonic(), self._index.changes, len(self._index)
        if changes <= max(DUE_ROWS, DUE_SHARE * size) or now < self._next_at:
            return
        if now - changed_at < PAUSE_SECONDS and changes < DUE_SHARE_AT_ONCE * size:
            return
        self._next_at = now + BETWEEN_SECONDS
        if self._writing is None or not self._writing.is_alive():
            self._writing = Thread(target=self._write, name="write-snapshot", daemon=True)
            self._writing.start()

    def _write(self) -> None:
        """Write a snapshot and go on with it as base: processes share its memory, and searches have less to merge."""
        started = time.monotonic()
        try:
            snapshot = self._snapshots.write(self._pages())
        except (OSError, ValueError, SQLAlchemyError) as error:
            log.warning("The index can't be kept on disk: %s", error)
            return
        self._index.rebase(snapshot.index, FlatIndex(self._index.dim))
        log.info("Kept the index of %d images on disk in %.1f s", len(snapshot.index), time.monotonic() - started)

    def _pages(self) -> Iterator[tuple[Rows, Hashes, Vectors]]:
        for images in self._images.pages():
            rows, vectors = self._index.vectors(images.rows)
            yield rows, images.hashes[np.searchsorted(images.rows, rows)], vectors
