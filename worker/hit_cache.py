"""What results tell of the catalogue's images, kept in memory until their item changes."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from threading import Lock

from shared.catalogue import HitRow

Hit = tuple[HitRow, str]  # with the link of the image

MAX_ROWS = 50_000  # of 1 to 2 KB each, as a rule
MAX_BYTES = 64 * 1024**2
ROW_BYTES = 1000  # of the dictionaries and objects that a row takes, whatever it tells


class HitCache:
    """Rows read from the database once; who follows the catalogue's changes must say which items have changed."""

    def __init__(
        self, read: Callable[[Sequence[int]], dict[int, Hit]], max_rows: int = MAX_ROWS, max_bytes: int = MAX_BYTES
    ) -> None:
        self._read = read
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._hits: dict[int, Hit] = {}  # the oldest first
        self._bytes_of: dict[int, int] = {}
        self._bytes = 0
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
            if row in self._hits:  # another thread has read it as well
                continue
            self._hits[row] = hit
            self._rows_of.setdefault(hit[0].item_id, set()).add(row)
            self._bytes_of[row] = _estimated_bytes(hit)
            self._bytes += self._bytes_of[row]
        while len(self._hits) > self._max_rows or self._bytes > self._max_bytes:
            oldest = next(iter(self._hits))
            item_id = self._hits[oldest][0].item_id
            self._drop(oldest)
            self._rows_of[item_id].remove(oldest)
            if not self._rows_of[item_id]:
                del self._rows_of[item_id]

    def _drop(self, row: int) -> None:
        del self._hits[row]
        self._bytes -= self._bytes_of.pop(row)

    def forget(self, item_ids: Iterable[str]) -> None:
        """Drop what is known of items that have changed or are gone."""
        with self._lock:
            self._changes += 1
            for item_id in item_ids:
                for row in self._rows_of.pop(item_id, ()):
                    self._drop(row)

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._changes += 1
            self._hits.clear()
            self._rows_of.clear()
            self._bytes_of.clear()
            self._bytes = 0


def _estimated_bytes(hit: Hit) -> int:
    item, link = hit
    texts = (item.item_id, item.title, json.dumps(item.attributes), link)
    return ROW_BYTES + sum(sys.getsizeof(text) for text in texts)
