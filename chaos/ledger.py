"""Which jobs were accepted, and how each of them ended, as clients saw it."""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

FINAL = ("succeeded", "failed", "cancelled")
POLL_SECONDS = 0.2

Read = Callable[[str], Mapping[str, Any] | None]


def _outcome(job: Mapping[str, Any]) -> str:
    """Return what must be the same whenever a finished job is read."""
    kept = {name: job.get(name) for name in ("status", "result", "error", "finished_at")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


class Ledger:
    """The jobs of one experiment; threads share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._outcomes: dict[str, str | None] = {}
        self._doubled: set[str] = set()
        self._gone: set[str] = set()
        self._forgotten: set[str] = set()
        self.failed: Counter[str] = Counter()

    def accept(self, job_id: str) -> None:
        """Note that a job was answered with an id."""
        with self._lock:
            self._outcomes.setdefault(job_id, None)

    def saw(self, job: Mapping[str, Any]) -> bool:
        """Note a job as it was read; returns whether it has ended."""
        if job["status"] not in FINAL:
            with self._lock:
                if self._outcomes.get(job["id"]) is not None:
                    self._doubled.add(job["id"])  # it had ended, and runs again
            return False
        outcome = _outcome(job)
        with self._lock:
            known = self._outcomes.get(job["id"])
            if known is None:
                self._outcomes[job["id"]] = outcome
                if job["status"] == "failed":
                    self.failed[job["error"]["code"]] += 1
            elif known != outcome:
                self._doubled.add(job["id"])
        return True

    def is_gone(self, job_id: str) -> None:
        """Note that a client was told that there is no such job."""
        with self._lock:
            self._gone.add(job_id)

    def forget_ended(self) -> None:
        """Read no more what has ended; it still counts."""
        with self._lock:
            self._forgotten = {job_id for job_id, outcome in self._outcomes.items() if outcome is not None}

    def settle(self, read: Read, seconds: float) -> None:
        """Wait for the end of every job, then read each once more: an outcome that changes is found so.

        Args:
            read: reads a job; None if the server says that it is gone.
            seconds: how long to wait for all.
        """
        deadline = time.monotonic() + seconds
        while (waiting := self._waiting()) and time.monotonic() < deadline:
            for job_id in waiting:
                self._read(read, job_id)
            time.sleep(POLL_SECONDS)
        ended = {job_id for job_id, outcome in self._outcomes.items() if outcome is not None}
        for job_id in sorted(ended - self._forgotten):
            self._read(read, job_id)

    def _waiting(self) -> list[str]:
        return [job_id for job_id, outcome in self._outcomes.items() if outcome is None and job_id not in self._gone]

    def _read(self, read: Read, job_id: str) -> None:
        job = read(job_id)
        if job is None:
            self.is_gone(job_id)
        else:
            self.saw(job)

    @property
    def accepted(self) -> int:
        """Number of jobs."""
        return len(self._outcomes)

    @property
    def finished(self) -> int:
        """Number of jobs that ended."""
        return sum(outcome is not None for outcome in self._outcomes.values())

    @property
    def gone(self) -> int:
        """Number of jobs that the server says are not there, whether or not they had ended before."""
        return len(self._gone)

    @property
    def lost(self) -> list[str]:
        """Jobs that never ended, and that nobody said are gone."""
        return self._waiting()

    @property
    def doubled(self) -> list[str]:
        """Jobs with two outcomes."""
        return sorted(self._doubled)
