"""The ends of jobs, as they come: one thread of each web process listens for all clients that wait.

A waiting client costs no connection and no command. The thread begins with the first that waits, after gunicorn's
fork, and reads the stream of ended jobs (shared/jobs.py); it reads the records of those that somebody waits for, all
that ended together at once. Whenever it connects it wakes everybody, so that what ended meanwhile is read from the
records; from then on the stream's ids tell what is new.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from typing import Any, cast

from redis import Redis
from redis.exceptions import RedisError

from shared.job_record import JobRecord
from shared.jobs import FINISHED_KEY, Jobs
from shared.redis_client import LISTEN_SECONDS

log = logging.getLogger(__name__)

RECONNECT_SECONDS = 0.5


class Watch:
    """One who waits for the end of a job."""

    def __init__(self) -> None:
        self.woken = Event()
        self.record: JobRecord | None = None  # once the job has ended and the record was read


class JobEnds:
    """Wakes the threads that wait for the end of a job."""

    def __init__(self, redis: Redis, jobs: Jobs) -> None:
        self._redis = redis
        self._jobs = jobs
        self._lock = Lock()
        self._watches: dict[str, list[Watch]] = {}
        self._listener: Thread | None = None
        self._closed = Event()

    @contextmanager
    def watching(self, job_id: str) -> Iterator[Watch]:
        """Give what is woken when the job has ended, or when it must be read to know.

        Whoever sends the job's message, or reads that the job has not ended, within the block misses nothing.
        """
        watch = Watch()
        with self._lock:
            self._watches.setdefault(job_id, []).append(watch)
        try:
            self._ensure_listener()
            yield watch
        finally:
            with self._lock:
                watches = self._watches[job_id]
                watches.remove(watch)
                if not watches:
                    del self._watches[job_id]

    def _ensure_listener(self) -> None:
        with self._lock:
            if self._listener is None or not self._listener.is_alive():
                listener = Thread(target=self._listen, name="job-ends", daemon=True)
                listener.start()
                self._listener = listener

    def close(self) -> None:
        """End the listener; within LISTEN_SECONDS, if no job ends meanwhile."""
        self._closed.set()

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                position = self._newest()
                self._wake_all()
                while not self._closed.is_set():
                    position = self._wake_ended(position)
            except RedisError as error:
                log.warning("Redis failed while clients wait: %s", error)
                self._closed.wait(RECONNECT_SECONDS)
            except Exception:
                log.exception("The listener for the ends of jobs failed")
                self._wake_all()  # each may read for itself what the listener could not
                self._closed.wait(RECONNECT_SECONDS)

    def _newest(self) -> bytes:
        entries = cast("list[tuple[bytes, Any]]", self._redis.xrevrange(FINISHED_KEY, count=1))
        return entries[0][0] if entries else b"0-0"

    def _wake_ended(self, position: bytes) -> bytes:
        """Wake those whose job ended behind a position of the stream; returns the new one."""
        found = cast("list[Any]", self._redis.xread({FINISHED_KEY: position}, block=LISTEN_SECONDS * 1000))
        if not found:
            return position
        entries = found[0][1]
        ended = [fields[b"id"].decode() for _, fields in entries]
        with self._lock:
            watched = [job_id for job_id in ended if job_id in self._watches]
        records = self._jobs.get_many(watched)
        with self._lock:
            for record in records:
                for watch in self._watches.get(record.id, ()):
                    watch.record = record
                    watch.woken.set()
        newest: bytes = entries[-1][0]
        return newest

    def _wake_all(self) -> None:
        with self._lock:
            for watches in self._watches.values():
                for watch in watches:
                    watch.woken.set()
