"""Messages that wait while a search worker's threads are busy: a thread that is done takes the next one itself.

Celery holds the interpreter for 1.5 to 2 ms of each message: a third of all that Python does for a search. Where
messages wait anyway, a thread may as well take the oldest from the list, which is one command. Where none waits, Celery
is as fast, and this stays out of its way. A message that is lost with its worker comes back like those that Celery has
received: recovery sends it again when the job's lease is over.
"""

import logging
from collections.abc import Callable, Mapping
from threading import Event, Lock
from time import monotonic
from typing import cast

from redis import Redis
from redis.exceptions import RedisError

from shared.task_message import read_message

log = logging.getLogger(__name__)

# Of a worker's threads so many are busy before messages can be waiting.
BUSY_SHARE = 0.75
# Then a thread goes back to Celery, which has to be able to end.
TURN_SECONDS = 5.0

Work = Callable[[str], None]


class Backlog:
    """The waiting messages of one queue. Threads share it."""

    def __init__(self, redis: Redis, key: str, threads: int) -> None:
        """Args:
        redis: has the queue.
        key: of its list.
        threads: how many a worker has.
        """
        self._redis = redis
        self._key = key
        self._busy = BUSY_SHARE * threads
        self._works: dict[str, Work] = {}
        self._running = 0
        self._lock = Lock()
        self._ended = Event()

    def end(self) -> None:
        """Take no more: the worker ends, and another one may have what waits."""
        self._ended.set()

    def serve(self, works: Mapping[str, Work]) -> None:
        """Name the tasks of the queue, and what does each of them."""
        self._works.update(works)

    def run(self, work: Work, job_id: str) -> None:
        """Do the work of a message that Celery handed over, and then that of messages which wait, for a while.

        Args:
            work: of the message's task.
            job_id: its job.

        Raises:
            Exception: what the first work raises; that of others is logged, and recovery brings their jobs back.
        """
        with self._lock:
            self._running += 1
        try:
            work(job_id)
            turn_ends = monotonic() + TURN_SECONDS
            while self._running >= self._busy and not self._ended.is_set() and monotonic() < turn_ends:
                if not self._run_next():
                    break
        finally:
            with self._lock:
                self._running -= 1

    def _run_next(self) -> bool:
        """Do the oldest message that waits; returns False if there is none that this can do."""
        try:
            text = cast("bytes | None", self._redis.rpop(self._key))
            if text is None:
                return False
            try:
                task, arguments = read_message(text)
                work = self._works[task]
            except (ValueError, LookupError) as error:
                log.warning("A message is left to Celery: %r", error)
                self._redis.rpush(self._key, text)  # where it was
                return False
        except RedisError as error:
            log.warning("Redis can't be asked for what waits: %s", error)
            return False
        try:
            work(*arguments)
        except Exception:
            log.exception("A message of the task %s failed", task)
        return True
