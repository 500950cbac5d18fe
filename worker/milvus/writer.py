"""Brings a collection to what the catalogue says: one process at a time, in the order of seq."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from redis import Redis
from redis.exceptions import LockError
from redis.lock import Lock
from sqlalchemy import Engine, func, select

from shared.catalogue import State
from shared.tables import ItemImageRow
from worker.milvus.collection import ReleaseCollection
from worker.milvus.item_rows import changed_items, item_rows

log = logging.getLogger(__name__)

# Renewed before each page of items; so long nobody writes after a writer was killed.
LEASE_SECONDS = 15.0
COMPARED_IDS = 10_000
SAMPLED_IDS = 500
# So long a writer goes on before it looks for other work; the rest is for the next one.
STEP_SECONDS = 1.0


class Writer:
    """Writes what has changed.

    Everything it does may be done again, and half of it may be missing: a change counts as applied only when all of
    its rows are written, and who comes next begins there.
    """

    def __init__(self, engine: Engine, redis: Redis, collection: ReleaseCollection, encoder_id: str) -> None:
        self._engine = engine
        self._collection = collection
        self._encoder_id = encoder_id
        # No fence: a writer that slept beyond its lease may still write a row that is deleted by then. Searches ask the
        # database for each hit, and pass over such a row.
        name = f"lookalike:index-writer:{collection.name}"
        self._turn = Lock(redis, name, timeout=LEASE_SECONDS, blocking=False, thread_local=False)
        self._is_checked = False
        self._compared_seq = 0  # up to which nothing purged is here any more
        self._empty_until_seq = 0  # what has not changed since then had no rows when we began

    def create(self) -> bool:
        """Make the collection, unless another process is at it; return whether it is made."""
        with self._taking_turn() as is_ours:
            if is_ours:
                self._collection.create()
            return is_ours

    @contextmanager
    def _taking_turn(self) -> Iterator[bool]:
        is_ours = self._turn.acquire()
        try:
            yield is_ours
        finally:
            if is_ours:
                with suppress(LockError):  # it took so long that another process has it by now
                    self._turn.release()

    def bring_to(self, state: State) -> int:
        """Apply what the catalogue had committed at a state, as far as a step goes, unless another process is at it.

        Returns:
            The seq up to which the collection holds all changes.

        Raises:
            IndexUnavailable: if Milvus can't be reached.
            SQLAlchemyError: if the catalogue can't be read.
        """
        reached = self._collection.seq()
        if reached == state.seq and self._is_checked:
            return reached
        with self._taking_turn() as is_ours:
            if not is_ours:
                return reached
            try:
                return self._apply(self._begin(state), state.seq)
            except LockError:
                log.warning("Another process writes to Milvus now")
        return self._collection.seq()

    def _begin(self, state: State) -> int:
        """Return the seq to go on from, after the removal of rows that no change tells of."""
        reached = self._collection.seq()
        is_other = state.seq < reached or (not self._is_checked and self._is_foreign())
        if is_other or (0 < reached < state.purged_seq and self._compared_seq < state.purged_seq):
            log.warning("The rows in Milvus are compared with the catalogue's, since no change tells what is gone")
            self._remove_absent()
        if is_other:
            log.warning("The catalogue is not the one that Milvus was filled from: it is filled anew")
            reached = 0
            self._collection.set_seq(0)
        self._is_checked, self._compared_seq = True, state.purged_seq
        return reached

    def _apply(self, begun: int, up_to: int) -> int:
        """Apply changes in (begun, up_to], or those for which there is time, and return the seq that was reached."""
        if begun == 0 and len(self._collection) == 0:
            self._empty_until_seq = up_to
        reached, stop_at = begun, time.monotonic() + STEP_SECONDS
        for item_ids, seq in changed_items(self._engine, begun, up_to):
            self._turn.reacquire()
            self._write(item_ids, is_new=seq <= self._empty_until_seq)
            if seq - 1 > reached:  # of the page's last change, more items may follow
                reached = seq - 1
                self._collection.set_seq(reached)
                if time.monotonic() > stop_at:
                    return reached
        self._collection.set_seq(up_to)
        return up_to

    def _write(self, item_ids: Sequence[str], is_new: bool) -> None:
        """Make the rows of some items as the catalogue has them. What comes is there before what goes is gone."""
        wanted = item_rows(self._engine, self._encoder_id, self._collection.dim, item_ids)
        present = set() if is_new else self._collection.ids_of(item_ids)
        self._collection.put(list(wanted.values()))
        self._collection.remove(present - wanted.keys())

    def _remove_absent(self) -> None:
        """Remove rows that the catalogue doesn't have, or has of another image."""
        _, highest = self._range()
        for first in range(1, highest + 1, COMPARED_IDS):
            self._turn.reacquire()
            last = first + COMPARED_IDS - 1
            known = self._hashes(first, last)
            present = self._collection.hashes(first, last)
            self._collection.remove([row for row, sha256 in present.items() if known.get(row) != sha256])
        while beyond := self._collection.ids_above(highest):
            self._turn.reacquire()
            self._collection.remove(beyond)

    def _is_foreign(self) -> bool:
        """Tell whether some of the oldest or newest rows are of other images: then they are another database's."""
        lowest, highest = self._range()
        for first in {lowest, max(1, highest - SAMPLED_IDS)}:
            known = self._hashes(first, first + SAMPLED_IDS)
            present = self._collection.hashes(first, first + SAMPLED_IDS)
            if any(present[row] != known[row] for row in present.keys() & known.keys()):
                return True
        return False

    def _range(self) -> tuple[int, int]:
        """Return the lowest and the highest row of the catalogue; 0 where it has none."""
        with self._engine.connect() as connection:
            lowest, highest = connection.execute(select(func.min(ItemImageRow.id), func.max(ItemImageRow.id))).one()
        return lowest or 0, highest or 0

    def _hashes(self, first: int, last: int) -> dict[int, str]:
        """Return the SHA-256 of the catalogue's images by row, in a range of rows."""
        statement = select(ItemImageRow.id, ItemImageRow.sha256).where(ItemImageRow.id.between(first, last))
        with self._engine.connect() as connection:
            return dict(connection.execute(statement).all())
