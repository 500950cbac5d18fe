"""Signs of life: leases of the jobs at hand, and the presence of this worker."""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from time import monotonic
from typing import NoReturn

from billiard.process import active_children
from redis.exceptions import RedisError

from shared.jobs import Jobs

log = logging.getLogger(__name__)

# Looks are counted, not seconds: when all of the process stood still, it is given time to go on.
HUNG_LOOKS = 3


def end_process(told: str) -> NoReturn:
    """End this process at once, children first: its main thread may hang. A supervisor starts it again."""
    log.critical(told)
    for child in active_children():
        os.kill(child.pid, signal.SIGKILL)
    logging.shutdown()
    os._exit(os.EX_SOFTWARE)


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
    """Renews the leases of the jobs that this process works on, so that nobody else takes them for lost.

    No pool of threads can end a thread that hangs, and a prefork child that hangs keeps its worker from everything
    else. So a process that has a job in hand for longer than it may ends itself, and the job is tried again like any
    other whose worker died.
    """

    def __init__(self, jobs: Jobs, lease_seconds: float, on_hang: Callable[[str], None] = end_process) -> None:
        """Args:
        jobs: the records.
        lease_seconds: a lease is renewed three times as often.
        on_hang: is told what hangs, in a sentence.
        """
        self._jobs = jobs
        self._interval_seconds = lease_seconds / 3
        self._on_hang = on_hang
        self._ends: dict[object, tuple[str, float]] = {}
        self._late_looks: dict[object, int] = {}
        self._lock = Lock()
        self._thread: Thread | None = None

    @contextmanager
    def holding(self, job_id: str, max_seconds: float) -> Iterator[None]:
        """Keep a started job's lease alive within the block, but no longer than `max_seconds`; then the block hangs."""
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
                self._late_looks.pop(holder, None)

    def _renew_all(self) -> None:
        with self._lock:
            held = {job_id for job_id, end in self._ends.values() if monotonic() < end}
            for holder, (_, end) in self._ends.items():
                if monotonic() >= end:
                    self._late_looks[holder] = self._late_looks.get(holder, 0) + 1
            hung = [self._ends[holder][0] for holder, looks in self._late_looks.items() if looks > HUNG_LOOKS]
        if hung:
            self._on_hang(f"Job {hung[0]} is in hand for longer than any may take: this process ends")
        for job_id in held:
            self._jobs.renew(job_id)
