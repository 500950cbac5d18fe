"""Searches of several threads as one: together they cost a fraction of what they cost one by one."""

from collections import deque
from threading import Event, Lock

import numpy as np

from worker.index.vector_index import Neighbours, ReadableIndex, Rows, Vectors, check_search

AT_ONCE = 32


class _Asked:
    """A thread's search, until it is answered or it is its turn to answer all that wait."""

    def __init__(self, query: Vectors, k: int) -> None:
        self.query = query
        self.k = k
        self.woken = Event()
        self.leads = False
        self.answer: Neighbours | None = None


class SharedSearches:
    """Searches an index: what comes while a search runs is searched together after it.

    There is no timer and no thread of its own: whoever finds the index free searches at once; when it is done, the
    first of those who came meanwhile searches for all of them.
    """

    def __init__(self, index: ReadableIndex) -> None:
        self._index = index
        self._lock = Lock()
        self._waiting: deque[_Asked] = deque()
        self._is_busy = False

    def search(self, queries: Vectors, k: int, allowed: Rows | None = None) -> Neighbours:
        """Find the k most similar rows for each query; see ReadableIndex.search.

        Only single queries among all rows are shared, and where each costs its share only; others run alone. An
        approximate index is searched by all threads side by side.
        """
        if len(queries) != 1 or allowed is not None or not self._index.is_exact:
            return self._index.search(queries, k, allowed)
        check_search(queries, k, self._index.dim)  # in its own thread, so that only the guilty is told
        asked = _Asked(queries, k)
        with self._lock:
            self._waiting.append(asked)
            asked.leads = not self._is_busy
            self._is_busy = True
        if not asked.leads:
            asked.woken.wait()
        if asked.leads:
            self._answer_waiting()
        # Who led may have failed, for want of memory perhaps: then each one learns for itself.
        return asked.answer or self._index.search(queries, k)

    def _answer_waiting(self) -> None:
        """Search for the first of those who wait, the caller among them, and let the next one lead."""
        with self._lock:
            group = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
        try:
            together = np.concatenate([asked.query for asked in group])  # (n, dim)
            found = self._index.search(together, max(asked.k for asked in group))
            for number, asked in enumerate(group):
                one = slice(number, number + 1)
                asked.answer = Neighbours(found.scores[one, : asked.k], found.rows[one, : asked.k])
        finally:
            with self._lock:
                following = self._waiting[0] if self._waiting else None
                self._is_busy = following is not None
                if following is not None:
                    following.leads = True
            for asked in group:
                asked.woken.set()
            if following is not None:
                following.woken.set()
