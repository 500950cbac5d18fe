"""Signs of life: leases of the jobs at hand, and the presence of this worker."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from time import monotonic

from redis.exceptions import RedisError

from shared.jobs import Jobs

log = logging.getLogger(__name__)


def repeat(action: Callable[[], None], interval_seconds: float, stopped: Event, name: str) -> Thread:
    """Call `action` in a daemon thread until `stopped` is set; while Redis is away it is tried again."""

    def loop() -> None:
        while True:
            try:
                action()
            except RedisError as error:
                log.warning("%s: Redis failed: %s", name, error)
            if stopped.wait(interval_seconds):
                return

    thread = Thread(target=loop, name=name, daemon=True)
    thread.start()
    return thread


class Leases:
    """Renews the leases of the jobs that this process works on, so that nobody else takes them for lost."""

    def __init__(self, jobs: Jobs, lease_seconds: float) -> None:
        self._jobs = jobs
        self._interval_seconds = lease_seconds / 3
        self._ends: dict[object, tuple[str, float]] = {}
        self._lock = Lock()
        self._thread: Thread | None = None

    @contextmanager
    def holding(self, job_id: str, max_seconds: float) -> Iterator[None]:
        """Keep a started job's lease alive within the block, but no longer than `max_seconds`."""
        holder = object()  # two messages of one job may be at work here at once
        with self._lock:
            self._ends[holder] = (job_id, monotonic() + max_seconds)
            if self._thread is None:  # here and not before: a thread doesn't survive the fork of a bulk worker
                self._thread = repeat(self._renew_all, self._interval_seconds, Event(), "renew-leases")
        try:
            yield
        finally:
            with self._lock:
                self._ends.pop(holder, None)

    def _renew_all(self) -> None:
        with self._lock:
            held = {job_id for job_id, end in self._ends.values() if monotonic() < end}
        for job_id in held:
            self._jobs.renew(job_id)
