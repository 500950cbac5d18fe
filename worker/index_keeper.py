"""An index kept on disk, so that a new process need not read all embeddings from the database."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread, get_native_id

import numpy as np
from sqlalchemy.exc import SQLAlchemyError

from worker.index.flat_index import FlatIndex
from worker.index.recipe import RecallNotReached
from worker.index.segmented_index import SegmentedIndex
from worker.index.snapshot import Snapshot, Snapshots
from worker.index.vector_index import Page
from worker.indexed_images import Images, IndexedImages

log = logging.getLogger(__name__)

# A snapshot is due when so many rows, and such a share of all, were added to the last one or removed from it.
DUE_ROWS, DUE_SHARE = 1000, 0.1
# While changes go on it waits for a pause, or for this share of all if that is DUE_NUMBERS, too: else an import would
# write each tenth anew, and share the CPU with the building of what is soon too old.
PAUSE_SECONDS, DUE_SHARE_AT_ONCE = 5.0, 0.5
BETWEEN_SECONDS = 30.0
# So many are compared with each search in 1.5 ms. A large approximate base is due then, whatever its share.
DUE_NUMBERS = 10_000_000
# It takes minutes to build: the next one waits for so many times that.
REST_FACTOR = 10
BUILDING_NICE = 15
# How often to look whether another process of this machine has written a newer snapshot.
LOOK_SECONDS = 5.0
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
        self._next_look_at = 0.0
        self._known = ""  # the name of the newest snapshot that was opened, written, or found useless

    def restore(self) -> Restored | None:
        """Fill the index, which must be empty, from a snapshot; None where there is none that fits.

        The catalogue says which rows there are. A row of the same image's hash has the same embedding, whatever
        happened to the catalogue since, or to its database: a snapshot needs no history, and none can mislead it.
        """
        snapshot = self._snapshots.newest()
        if snapshot is None or len(snapshot.index) == 0:
            return None
        restored = Restored({}, {})
        for images, is_there, is_same in self._compared(snapshot):
            is_known = is_there & is_same  # (n,)
            for known, row, item_id, sha256 in zip(
                is_known.tolist(), images.rows.tolist(), images.item_ids, images.hashes, strict=True
            ):
                if known:
                    restored.owners[row] = item_id
                else:
                    restored.missing[row] = (item_id, sha256.tobytes().hex())
        if len(restored.owners) < FEWEST_KNOWN * len(snapshot.index):
            log.warning("The index snapshot holds little of this catalogue; the index is filled from the database")
            return None
        self._known = snapshot.name
        self._index.restart(snapshot.index, FlatIndex(self._index.dim))
        self._index.remove(np.setdiff1d(snapshot.index.rows, np.fromiter(restored.owners, np.int64)))
        return restored

    def keep(self, changed_at: float) -> None:
        """Go on with a newer snapshot that another process wrote; or write one in the background, if one is due.

        Args:
            changed_at: when the index was last changed, by `time.monotonic`.
        """
        if self._writing is not None and self._writing.is_alive():
            return
        now = time.monotonic()
        if now >= self._next_look_at:
            self._next_look_at = now + LOOK_SECONDS
            if self._snapshots.newest_name() > self._known:
                self._start(self._adopt)
                return
        if now >= self._next_at and self._is_due(now - changed_at):
            self._next_at = now + BETWEEN_SECONDS
            self._start(self._write)

    def _is_due(self, quiet_seconds: float) -> bool:
        recipe, changes, size = self._snapshots.recipe, self._index.changes, len(self._index)
        if recipe.is_exact_for(size, self._index.dim):
            is_large = changes > max(DUE_ROWS, DUE_SHARE * size)
        else:
            due_rows = min(DUE_SHARE * size, DUE_NUMBERS / self._index.dim)
            is_large = changes > max(DUE_ROWS, due_rows) or self._index.is_exact
        is_urgent = changes >= DUE_SHARE_AT_ONCE * size and changes * self._index.dim >= DUE_NUMBERS
        return is_large and (is_urgent or quiet_seconds >= PAUSE_SECONDS)

    def _start(self, work: Callable[[], None]) -> None:
        self._writing = Thread(target=work, name="write-snapshot", daemon=True)
        self._writing.start()

    def _write(self) -> None:
        """Write a snapshot and go on with it as base: processes share its memory, and searches have less to merge.

        One process of a machine writes at a time; the others take what it has written.
        """
        started = time.monotonic()
        try:
            with self._snapshots.writing() as is_alone:
                if not is_alone:
                    return
                _step_back()
                snapshot = self._snapshots.write(self._pages(), len(self._index))
        except RecallNotReached as error:
            log.error("The index goes on with the base that it has: %s", error)
        except (OSError, ValueError, SQLAlchemyError) as error:
            log.warning("The index can't be kept on disk: %s", error)
        else:
            self._go_on_with(snapshot)
            log.info("Kept the index of %d images on disk in %.1f s", len(snapshot.index), time.monotonic() - started)
        self._next_at = max(self._next_at, time.monotonic() + REST_FACTOR * (time.monotonic() - started))

    def _adopt(self) -> None:
        """Go on with what another process has written, unless it holds other images than the catalogue."""
        snapshot = self._snapshots.newest(after=self._known)
        self._known = self._snapshots.newest_name()  # what can't be used is not to be looked at again
        if snapshot is None or not len(snapshot.index):
            return
        try:
            known, foreign = self._known_and_foreign(snapshot)
        except SQLAlchemyError as error:
            log.warning("The index snapshot %s can't be compared with the catalogue: %s", snapshot.name, error)
            return
        if foreign or known < FEWEST_KNOWN * len(snapshot.index):
            log.warning("The index snapshot %s is not of this catalogue", snapshot.name)
            return
        self._go_on_with(snapshot)
        log.info("Went on with the index snapshot %s of %d images", snapshot.name, known)

    def _known_and_foreign(self, snapshot: Snapshot) -> tuple[int, int]:
        """Return how many of the catalogue's rows a snapshot has with the same image, and with another one."""
        known = foreign = 0
        for _, is_there, is_same in self._compared(snapshot):
            known += int((is_there & is_same).sum())
            foreign += int((is_there & ~is_same).sum())
        return known, foreign

    def _compared(self, snapshot: Snapshot) -> Iterator[tuple[Images, np.ndarray, np.ndarray]]:
        """Yield the catalogue's images; bool (n,), which of their rows a snapshot has, and where its image is the same.

        Args:
            snapshot: of one row at least.
        """
        order = np.argsort(snapshot.index.rows)
        rows, hashes = snapshot.index.rows[order], snapshot.hashes[order]
        for images in self._images.pages():
            places = np.searchsorted(rows, images.rows).clip(max=len(rows) - 1)
            yield images, rows[places] == images.rows, (hashes[places] == images.hashes).all(axis=1)

    def _go_on_with(self, snapshot: Snapshot) -> None:
        self._index.rebase(snapshot.index, FlatIndex(self._index.dim))
        self._known = max(self._known, snapshot.name)

    def _pages(self) -> Iterator[Page]:
        for images in self._images.pages():
            rows, vectors = self._index.vectors(images.rows)
            yield rows, images.hashes[np.searchsorted(images.rows, rows)], vectors


def _step_back() -> None:
    """Leave the CPU to searches: this thread, and those that it starts."""
    with suppress(OSError):  # only Linux has a priority for each thread
        os.setpriority(os.PRIO_PROCESS, get_native_id(), BUILDING_NICE)
