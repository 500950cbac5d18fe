"""Job records: the truth about every job, kept in Redis.

Keys (prefix `lookalike:`):
    job:{id}            hash    the record; JobRecord names its fields. Expires job_ttl_seconds after the last change.
    job:{id}:image      string  bytes of an uploaded photo. Expires with the search's deadline; deleted at the end.
    job:{id}:finished   stream  one entry when the job has ended: what waiters block on.
    job:{id}:deliveries list    log of the webhook callback, one JSON Delivery an entry.
    job:{id}:delivering string  there while a try of its callback is under way. Expires, in case its worker dies.
    jobs:active         zset    id -> unix time from which recovery looks at it, unless the lease is renewed.
    jobs:counts         hash    "{kind}:{status}" -> number of jobs that ended so.
    callbacks:due       zset    id -> unix time of the next try of its callback.

State changes are Lua scripts, so that two workers with the same message, a client that cancels and the
recovery can't contradict each other: a final status never changes.
"""

import json
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from redis import Redis

from shared.errors import JobAlreadyFinished, JobNotFound, LookalikeError
from shared.job_record import JobRecord
from shared.schemas import Delivery, JobKind, JobStatus, Progress
from shared.settings import Settings

PREFIX = "lookalike:"
ACTIVE_KEY = f"{PREFIX}jobs:active"
COUNTS_KEY = f"{PREFIX}jobs:counts"
CALLBACKS_DUE_KEY = f"{PREFIX}callbacks:due"

_START = """
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'queued' and status ~= 'running' then return 0 end
redis.call('HSET', KEYS[1], 'status', 'running')
redis.call('HSETNX', KEYS[1], 'started_at', ARGV[1])
redis.call('HINCRBY', KEYS[1], 'attempts', ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1
"""

_PROGRESS = """
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'queued' and status ~= 'running' then return 0 end
redis.call('HSET', KEYS[1], 'progress', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
"""

_FINISH = """
local record = redis.call('HMGET', KEYS[1], 'status', 'kind', 'callback_url')
if record[1] ~= 'queued' and record[1] ~= 'running' then return 0 end
redis.call('HSET', KEYS[1], 'status', ARGV[1], 'finished_at', ARGV[2], ARGV[3], ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('DEL', KEYS[2])
redis.call('XADD', KEYS[3], '*', 'status', ARGV[1])
redis.call('EXPIRE', KEYS[3], ARGV[5])
redis.call('ZREM', KEYS[4], ARGV[6])
redis.call('HINCRBY', KEYS[5], record[2] .. ':' .. ARGV[1], 1)
if record[3] then redis.call('ZADD', KEYS[6], ARGV[7], ARGV[6]) end
return 1
"""


def job_key(job_id: str, part: str = "") -> str:
    """Return the Redis key of a job's record, or of a `part` of it."""
    return f"{PREFIX}job:{job_id}" + (f":{part}" if part else "")


def now_iso() -> str:
    """Return the current time in UTC as ISO 8601."""
    return datetime.now(UTC).isoformat()


class Jobs:
    """Creates, reads and moves job records."""

    def __init__(self, redis: Redis, settings: Settings, waiting_redis: Redis | None = None) -> None:
        self._redis = redis
        self._waiting_redis = waiting_redis or redis
        self._settings = settings
        self._start = redis.register_script(_START)
        self._progress = redis.register_script(_PROGRESS)
        self._finish = redis.register_script(_FINISH)

    def create(
        self,
        kind: JobKind,
        parameters: Mapping[str, Any],
        *,
        image: bytes | None = None,
        callback_url: str | None = None,
    ) -> str:
        """Write the record of a new job, and its photo, in one transaction.

        Returns:
            The job's id. Send its message next; if that fails, `forget` it.
        """
        job_id = uuid.uuid4().hex
        record: dict[Any, str] = {
            "kind": kind.value,
            "status": JobStatus.QUEUED.value,
            "parameters": json.dumps(parameters, separators=(",", ":")),
            "created_at": now_iso(),
        }
        if callback_url is not None:
            record["callback_url"] = callback_url
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(job_key(job_id), mapping=record)
            pipe.expire(job_key(job_id), self._settings.job_ttl_seconds)
            if image is not None:
                pipe.set(job_key(job_id, "image"), image, ex=2 * self._settings.search_deadline_seconds)
            pipe.zadd(ACTIVE_KEY, {job_id: time.time() + self._settings.job_lease_seconds})
            pipe.execute()
        return job_id

    def forget(self, job_id: str) -> None:
        """Remove a job whose message could not be sent."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(job_key(job_id), job_key(job_id, "image"))
            pipe.zrem(ACTIVE_KEY, job_id)
            pipe.execute()

    def get(self, job_id: str) -> JobRecord:
        """Read a job.

        Raises:
            JobNotFound: if there is no such record (any more).
        """
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(job_key(job_id))
            pipe.lrange(job_key(job_id, "deliveries"), 0, -1)
            fields, deliveries = pipe.execute()
        if b"kind" not in fields:
            raise JobNotFound(f"No job {job_id!r}; results can be read for {self._settings.job_ttl_seconds} seconds.")
        return JobRecord.from_hash(job_id, fields, deliveries)

    def image(self, job_id: str) -> bytes | None:
        """Return the photo that was uploaded with a job, while the job needs it."""
        return cast("bytes | None", self._redis.get(job_key(job_id, "image")))

    def start(self, job_id: str, *, counts_as_attempt: bool = True) -> JobRecord | None:
        """Take a job in hand for `job_lease_seconds`; call `renew` while working on it.

        Returns:
            The record, or None if the job has ended or is gone, so that there is nothing to do.
        """
        lease_end = time.time() + self._settings.job_lease_seconds
        arguments: list[str | float] = [
            now_iso(),
            lease_end,
            int(counts_as_attempt),
            job_id,
            self._settings.job_ttl_seconds,
        ]
        if not self._start(keys=[job_key(job_id), ACTIVE_KEY], args=arguments):
            return None
        return self.get(job_id)

    def return_attempt(self, job_id: str) -> None:
        """Take back the try that `start` counted, since the job itself is not to blame for its failure."""
        if self._redis.hexists(job_key(job_id), "kind"):
            self._redis.hincrby(job_key(job_id), "attempts", -1)

    def active(self) -> list[str]:
        """Return the ids of all jobs that wait or run."""
        found = cast("list[bytes]", self._redis.zrange(ACTIVE_KEY, 0, -1))
        return [job_id.decode() for job_id in found]

    def renew(self, job_id: str, seconds: float | None = None) -> None:
        """Prolong the lease of a job that has not ended, and keep its record from expiring meanwhile."""
        lease_end = time.time() + (self._settings.job_lease_seconds if seconds is None else seconds)
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zadd(ACTIVE_KEY, {job_id: lease_end}, xx=True)
            pipe.expire(job_key(job_id), self._settings.job_ttl_seconds)
            pipe.execute()

    def is_cancelled(self, job_id: str) -> bool:
        """Tell whether a client cancelled the job, or its record is gone."""
        return self._redis.hget(job_key(job_id), "status") in (None, JobStatus.CANCELLED.value.encode())

    def set_progress(self, job_id: str, progress: Progress) -> None:
        """Show how far a job is; one that has ended stays as it is."""
        self._progress(keys=[job_key(job_id)], args=[progress.model_dump_json(), self._settings.job_ttl_seconds])

    def succeed(self, job_id: str, result: Mapping[str, Any]) -> bool:
        """End a job with its result; returns False if it had ended before."""
        return self._end(job_id, JobStatus.SUCCEEDED, "result", result)

    def fail(self, job_id: str, error: LookalikeError) -> bool:
        """End a job with a stable error code; returns False if it had ended before."""
        return self._end(job_id, JobStatus.FAILED, "error", error.to_wire())

    def cancel(self, job_id: str) -> JobRecord:
        """End a job because its client doesn't want it any more.

        Raises:
            JobNotFound: if there is no such job.
            JobAlreadyFinished: if it has succeeded or failed; cancelling twice is fine.
        """
        cancelled = self._end(job_id, JobStatus.CANCELLED, "cancelled_at", now_iso())
        record = self.get(job_id)
        if not cancelled and record.status is not JobStatus.CANCELLED:
            raise JobAlreadyFinished(f"Job {job_id} has {record.status.value} already; there is nothing to cancel.")
        return record

    def _end(self, job_id: str, status: JobStatus, field: str, value: Any) -> bool:
        keys = [
            job_key(job_id),
            job_key(job_id, "image"),
            job_key(job_id, "finished"),
            ACTIVE_KEY,
            COUNTS_KEY,
            CALLBACKS_DUE_KEY,
        ]
        body = json.dumps(value, separators=(",", ":"))
        arguments = [status.value, now_iso(), field, body, self._settings.job_ttl_seconds, job_id, time.time()]
        return bool(self._finish(keys=keys, args=arguments))

    def wait(self, job_id: str, seconds: float) -> JobRecord:
        """Block until the job has ended, for at most `seconds`, and return it as it then stands.

        Raises:
            JobNotFound: if there is no such job.
        """
        record = self.get(job_id)
        if seconds > 0 and not record.status.is_final:
            block = max(1, int(seconds * 1000))  # 0 would block for good
            self._waiting_redis.xread({job_key(job_id, "finished"): "0"}, count=1, block=block)
            record = self.get(job_id)
        return record

    def overdue(self, limit: int = 100) -> list[str]:
        """Return ids of jobs whose lease or start is overdue, the longest first."""
        found = self._redis.zrangebyscore(ACTIVE_KEY, 0, time.time(), start=0, num=limit)
        return [job_id.decode() for job_id in cast("list[bytes]", found)]

    def drop_active(self, job_id: str) -> None:
        """Stop watching over a job whose record is gone."""
        self._redis.zrem(ACTIVE_KEY, job_id)

    def add_delivery(self, job_id: str, delivery: Delivery) -> None:
        """Log one try of a job's callback and plan the next, if there is to be one."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.rpush(job_key(job_id, "deliveries"), delivery.model_dump_json())
            pipe.expire(job_key(job_id, "deliveries"), self._settings.job_ttl_seconds)
            if delivery.next_attempt_at is None:
                pipe.zrem(CALLBACKS_DUE_KEY, job_id)
            else:
                pipe.zadd(CALLBACKS_DUE_KEY, {job_id: delivery.next_attempt_at.timestamp()})
            pipe.execute()

    def claim_due_callbacks(self, hold_seconds: float, limit: int = 100) -> list[str]:
        """Return ids of jobs whose callback is due, and keep them from being due again for `hold_seconds`."""
        now = time.time()
        found = cast("list[bytes]", self._redis.zrangebyscore(CALLBACKS_DUE_KEY, 0, now, start=0, num=limit))
        if found:
            self._redis.zadd(CALLBACKS_DUE_KEY, dict.fromkeys(found, now + hold_seconds), xx=True)
        return [job_id.decode() for job_id in found]

    def drop_callback(self, job_id: str) -> None:
        """Give up a callback whose job record is gone."""
        self._redis.zrem(CALLBACKS_DUE_KEY, job_id)

    def claim_delivery(self, job_id: str, seconds: float) -> bool:
        """Begin a try of a job's callback, unless one is under way; it ends by `release_delivery`, or in `seconds`."""
        return bool(self._redis.set(job_key(job_id, "delivering"), 1, nx=True, px=int(seconds * 1000)))

    def release_delivery(self, job_id: str) -> None:
        """End a try of a job's callback."""
        self._redis.delete(job_key(job_id, "delivering"))
