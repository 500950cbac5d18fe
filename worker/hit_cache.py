"""What results tell of the catalogue's images, kept in memory until their item changes."""

from collections.abc import Callable, Iterable, Sequence
from threading import Lock

from shared.catalogue import HitRow

Hit = tuple[HitRow, str]  # with the link of the image

MAX_ROWS = 50_000  # of 1 to 2 KB each


class HitCache:
    """Rows read from the database once; who follows the catalogue's changes must say which items have changed."""

    def __init__(self, read: Callable[[Sequence[int]], dict[int, Hit]], max_rows: int = MAX_ROWS) -> None:
        self._read = read
        self._max_rows = max_rows
        self._hits: dict[int, Hit] = {}  # the oldest first
        self._rows_of: dict[str, set[int]] = {}
        self._changes = 0
        self._lock = Lock()

    def get(self, rows: Sequence[int]) -> dict[int, Hit]:
        """Return what a result tells of each index row; gone rows are left out. Not to be modified."""
        found = {row: hit for row in rows if (hit := self._hits.get(row)) is not None}
        missing = [row for row in rows if row not in found]
        if missing:
            changes = self._changes
            read = self._read(missing)
            found.update(read)
            with self._lock:
                # A change that came meanwhile may be of these items, and newer than what was read.
                if changes == self._changes:
                    self._keep(read)
        return found

    def _keep(self, read: dict[int, Hit]) -> None:
        for row, hit in read.items():
            self._hits[row] = hit
            self._rows_of.setdefault(hit[0].item_id, set()).add(row)
        while len(self._hits) > self._max_rows:
            oldest = next(iter(self._hits))
            item_id = self._hits.pop(oldest)[0].item_id
            self._rows_of[item_id].remove(oldest)
            if not self._rows_of[item_id]:
                del self._rows_of[item_id]

    def forget(self, item_ids: Iterable[str]) -> None:
        """Drop what is known of items that have changed or are gone."""
        with self._lock:
            self._changes += 1
            for item_id in item_ids:
                for row in self._rows_of.pop(item_id, ()):
                    del self._hits[row]

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._changes += 1
            self._hits.clear()
            self._rows_of.clear()
