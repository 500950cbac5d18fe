"""Which tasks of a search worker may fetch images by URL: a slow host holds a thread, and others need threads too."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from shared.job_record import JobRecord

# Short, since it holds a thread as well; but many tasks that are sent back at once would keep Redis busy.
WAIT_SECONDS = 0.2


class FetchTurns:
    """Turns of jobs that fetch images by URL, of which so many may run together. Threads share it."""

    def __init__(self, limit: int) -> None:
        self._free = BoundedSemaphore(limit)

    @contextmanager
    def turn(self, job: JobRecord) -> Iterator[bool]:
        """Tell whether the job may run within the block; if not, send its message again, behind all others.

        A job that fetches nothing always may.
        """
        if not _fetches(job):
            yield True
            return
        may_run = self._free.acquire(timeout=WAIT_SECONDS)
        try:
            yield may_run
        finally:
            if may_run:
                self._free.release()


def _fetches(job: JobRecord) -> bool:
    return bool(job.parameters.get("image_urls")) or "image_url" in job.parameters.get("source", ())
