"""Bounds of unfinished work: of a client, so that none starves another, and of all, so that a queue ends somewhere.

Jobs are counted in the transaction that records them and in the script that ends them (`jobs:unfinished` in
shared/jobs.py), under these names:
    bulk              all jobs of the queue `bulk`; its length is no measure, since an import sends a message a chunk
    {queue}:{client}  those of one client
What waits on the queue `search` is its length. Redis tells each count when a job is recorded, so that web asks for
those alone that had reached their bound: looking costs nothing while there is room.
"""

from datetime import UTC, datetime
from typing import cast

from redis import Redis

from shared.errors import LookalikeError, QueueFull, TooManyJobs
from shared.jobs import UNFINISHED_KEY, job_key
from shared.queues import BULK, SEARCH, queue_key
from shared.settings import Settings
from shared.task_message import read_message
from web.clients import client_name, limits_clients

SEARCHES_WAITING = queue_key(SEARCH)
RETRY_AFTER_MAX_SECONDS = 60


class JobBounds:
    """Knows what is full. Threads share it."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._of_all = {SEARCHES_WAITING: settings.search_queue_max_messages, BULK: settings.bulk_max_unfinished_jobs}
        self._of_client: dict[str, int] = {}
        if limits_clients(settings):
            self._of_client[SEARCH] = settings.client_max_unfinished_searches
            self._of_client[BULK] = settings.client_max_unfinished_bulk_jobs
        self._reached: set[str] = set()

    def check(self, queue: str) -> list[str]:
        """Refuse a job of the client whose request is being answered if there is no room for it.

        Jobs that come at the same moment may go beyond a bound together.

        Returns:
            What the job is to be counted as.

        Raises:
            TooManyJobs: if this client has as many unfinished ones as it may have.
            QueueFull: if all clients together have.
        """
        counted_as: list[str] = []
        if self._of_client.get(queue):
            own = f"{queue}:{client_name()}"
            if self._is_reached(own):
                most = self._of_client[queue]
                detail = f"This client has {most:,} unfinished jobs on the queue {queue!r}, as many as it may have."
                raise self._refusal(TooManyJobs, detail, queue)
            counted_as.append(own)
        everybody = SEARCHES_WAITING if queue == SEARCH else queue
        if self._is_reached(everybody):
            raise self._refusal(QueueFull, f"The queue {queue!r} has no room.", queue)
        if queue == BULK and self._of_all[BULK]:
            counted_as.append(BULK)
        return counted_as

    def learn(self, name: str, count: int) -> None:
        """Note a count that Redis has told."""
        if 0 < self._bound_of(name) <= count:
            self._reached.add(name)

    def _bound_of(self, name: str) -> int:
        """Return the most that may be counted under a name; 0 if there is no bound."""
        return self._of_all[name] if name in self._of_all else self._of_client.get(name.partition(":")[0], 0)

    def _is_reached(self, name: str) -> bool:
        if name not in self._reached:
            return False
        if name == SEARCHES_WAITING:
            count = self._redis.llen(name)
        else:
            count = int(cast("bytes | None", self._redis.hget(UNFINISHED_KEY, name)) or 0)
        if count >= self._bound_of(name):
            return True
        self._reached.discard(name)
        return False

    def _refusal(self, kind: type[LookalikeError], detail: str, queue: str) -> LookalikeError:
        seconds = self._seconds_until_room(queue)
        return kind(f"{detail} Come again in {seconds} seconds.", queue=queue, retry_after_seconds=seconds)

    def _seconds_until_room(self, queue: str) -> int:
        """Return in how many seconds about a tenth of a queue is through: a tenth of what its oldest message waited."""
        oldest = cast("bytes | None", self._redis.lindex(queue_key(queue), -1))
        try:
            _task, (job_id, *_more) = read_message(oldest or b"")
            created_at = cast("bytes | None", self._redis.hget(job_key(job_id), "created_at")) or b""
            waited = datetime.now(UTC) - datetime.fromisoformat(created_at.decode())
        except ValueError:  # nothing waits, or what waits is no job's
            return 1
        return min(max(1, round(waited.total_seconds() / 10)), RETRY_AFTER_MAX_SECONDS)
