"""The index rows that a filter lets through, read from the database once for each state of the catalogue."""

from collections.abc import Mapping
from threading import Lock
from typing import Any

import numpy as np
from cachetools import LRUCache

from shared.catalogue import Catalogue
from shared.filters import compile_filter
from shared.result_cache import canonical
from worker.index.vector_index import Rows

MAX_ROWS = 4_000_000  # 32 MB
KEY_ROWS = 100  # what else an entry takes, in rows


class FilteredRows:
    """Answers for a filter that many clients search with, as those of a page's menu are."""

    def __init__(self, catalogue: Catalogue, max_rows: int = MAX_ROWS) -> None:
        """Args:
        catalogue: tells which items meet a filter.
        max_rows: rows that are remembered, of all filters together.
        """
        self._catalogue = catalogue
        self._known: LRUCache[tuple[int, str], Rows] = LRUCache(max_rows, getsizeof=lambda rows: len(rows) + KEY_ROWS)
        self._lock = Lock()

    def get(self, condition: Mapping[str, Any], version: int) -> Rows:
        """Return the rows of all items that meet a filter, int64 (n,); not to be modified, which numpy refuses.

        Args:
            condition: the filter.
            version: the catalogue's seq that the index is at. What is returned may be of a later state.

        Raises:
            UnknownFilterField: if it names what is no attribute any more.
        """
        key = (version, canonical(condition))
        with self._lock:
            known = self._known.get(key)
        if known is not None:
            return known
        compiled = compile_filter(condition, self._catalogue.attribute_types())
        rows = np.array(self._catalogue.image_rows(compiled), dtype=np.int64)
        rows.flags.writeable = False
        with self._lock:
            if len(rows) + KEY_ROWS <= self._known.maxsize:
                self._known[key] = rows
        return rows
