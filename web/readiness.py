"""Whether this process can take work, and what is missing where it can't."""

from redis import Redis
from redis.exceptions import RedisError, ResponseError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.migrations import applied_revision, current_head
from shared.queues import BULK, QUEUES, SEARCH
from shared.schemas import Readiness
from shared.worker_presence import present_workers

OK = "ok"
PROBE_KEY = "lookalike:readiness"
# What waits while nobody serves a queue.
WAITS = {
    "search": "searches, and single items with new images, wait",
    "bulk": "imports, batch searches and releases wait",
    "callbacks": "callbacks wait",
    "maintenance": "jobs whose worker died are not run again, and callbacks wait",
}


class ReadinessCheck:
    """Looks after what each request needs. Threads share it."""

    def __init__(self, redis: Redis, engine: Engine) -> None:
        self._redis = redis
        self._engine = engine
        self._head = current_head()

    def read(self) -> Readiness:
        """Look now.

        A queue without a worker is a warning: jobs are accepted and wait, known answers are given, items can be read.
        If that took web out of the load balancer, one restart of a search worker would make all of it go away.
        """
        workers = dict.fromkeys(QUEUES, 0)
        warnings: dict[str, str] = {}
        redis = self._redis_state()
        if redis == OK:
            try:
                workers = {queue: present_workers(self._redis, queue) for queue in QUEUES}
                warnings = {
                    queue: f"No worker serves the queue {queue}: {WAITS[queue]}. Start one."
                    for queue, number in workers.items()
                    if number == 0
                }
            except RedisError as error:
                redis = _away(error)
        checks = {"redis": redis, "database": self._database_state()}
        return Readiness(
            ready=all(state == OK for state in checks.values()),
            checks=checks,
            warnings=warnings,
            search_workers=workers[SEARCH],
            bulk_workers=workers[BULK],
        )

    def _redis_state(self) -> str:
        try:
            self._redis.set(PROBE_KEY, 1, ex=60)  # it may answer and yet refuse what a job needs: writes
        except ResponseError as error:
            return f"Redis at REDIS_URL refuses writes ({error}). Give it memory, or name the primary."
        except RedisError as error:
            return _away(error)
        return OK

    def _database_state(self) -> str:
        try:
            revision = applied_revision(self._engine)
        except SQLAlchemyError as error:
            return f"the database at DATABASE_URL does not answer ({type(error).__name__})"
        if revision == self._head:
            return OK
        return f"at revision {revision}, needs {self._head}: run `python -m shared.migrations`"


def _away(error: RedisError) -> str:
    return f"Redis at REDIS_URL does not answer ({type(error).__name__}). Start it or check the URL."
