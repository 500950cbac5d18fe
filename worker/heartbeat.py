"""Signs of life: leases of the jobs at hand, and the presence of this worker."""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Lock, Thread, Timer
from time import monotonic
from typing import NoReturn

from billiard.process import active_children
from redis.exceptions import RedisError

from shared.jobs import Jobs

log = logging.getLogger(__name__)

# Looks are counted, not seconds: when all of the process stood still, it is given time to go on.
HUNG_LOOKS = 3
LAST_WORD_SECONDS = 5


@dataclass
class _Hold:
    """A job in hand.

    Attributes:
        job_id: which.
        max_seconds: for so long it may be silent.
        end: when it will have been.
        late_looks: how often it was seen after that.
    """

    job_id: str
    max_seconds: float
    end: float
    late_looks: int = 0


def end_process(told: str) -> NoReturn:
    """End this process at once, children first: its main thread may hang. A supervisor starts it again."""
    last_word = Timer(LAST_WORD_SECONDS, os._exit, (os.EX_SOFTWARE,))  # what hangs may hold the lock of the log
    last_word.daemon = True
    last_word.start()
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
        self._holds: list[_Hold] = []
        self._lock = Lock()
        self._thread: Thread | None = None

    @contextmanager
    def holding(self, job_id: str, max_seconds: float) -> Iterator[None]:
        """Keep a started job's lease alive within the block, unless it is silent for `max_seconds`; then it hangs."""
        hold = _Hold(job_id, max_seconds, monotonic() + max_seconds)  # two messages of one job may be at work at once
        with self._lock:
            self._holds.append(hold)
            if self._thread is None:  # here and not before: a thread doesn't survive the fork of a bulk worker
                self._thread = repeat(self._renew_all, self._interval_seconds, Event(), "renew-leases")
        try:
            yield
        finally:
            with self._lock:
                self._holds = [other for other in self._holds if other is not hold]

    def go_on(self, job_id: str) -> None:
        """Tell that a job in hand goes on: from now on it may be silent for as long as in the beginning."""
        with self._lock:
            for hold in self._holds:
                if hold.job_id == job_id:
                    hold.end, hold.late_looks = monotonic() + hold.max_seconds, 0

    def _renew_all(self) -> None:
        with self._lock:
            held = {hold.job_id for hold in self._holds if monotonic() < hold.end}
            for hold in self._holds:
                hold.late_looks += monotonic() >= hold.end
            hung = [hold for hold in self._holds if hold.late_looks > HUNG_LOOKS]
        if hung:
            told = f"Job {hung[0].job_id} has given no sign for {hung[0].max_seconds:g} s"
            self._on_hang(f"{told}, which is longer than any may take: this process ends")
        for job_id in held:
            self._jobs.renew(job_id)
