"""Job records: the truth about every job, kept in Redis.

Keys (prefix `lookalike:`):
    job:{id}            hash    the record; JobRecord names its fields. Expires job_ttl_seconds after the last change.
    job:{id}:image      string  bytes of an uploaded photo. Expires with the search's deadline; deleted at the end.
    job:{id}:deliveries list    log of the webhook callback, one JSON Delivery an entry.
    job:{id}:delivering string  there while a try of its callback is under way. Expires, in case its worker dies.
    jobs:active         zset    id -> unix time from which recovery looks at it, unless the lease is renewed.
    jobs:finished       stream  id of each job that ended, in that order; the last FINISHED_KEPT or some more.
    jobs:unfinished     hash    what jobs are counted as (web/bounds.py) -> number of those that wait or run.
    jobs:counts         hash    "{kind}:{status}:{detail}" -> number of jobs that ended so. The detail is the code of an
                                error, or where a search's answer came from; others have none.
    jobs:recovered      hash    kind -> number of times that recovery sent a job again.
    jobs:looked_after   string  unix time at which recovery last ran.
    callbacks:deliveries hash   "delivered", "to_be_retried", "given_up" or "put_off" -> number of tries that ended so.
    callbacks:due       zset    id -> unix time of the next try of its callback.
    endpoints:paused    zset    see worker/callback_endpoints.py, which keeps it; web counts it.

State changes are Lua scripts, so that two workers with the same message, a client that cancels and the
recovery can't contradict each other: a final status never changes. Each step of a job is one round trip
(docs/decisions/0010-few-round-trips.md).
"""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from redis import Redis

from shared.errors import JobAlreadyFinished, JobNotFound, LookalikeError
from shared.job_record import JobRecord, json_bytes
from shared.result_cache import CacheEntry
from shared.schemas import AnsweredFrom, Delivery, JobKind, JobStatus, Progress
from shared.settings import Settings
from shared.task_message import TaskMessage

PREFIX = "lookalike:"
ACTIVE_KEY = f"{PREFIX}jobs:active"
FINISHED_KEY = f"{PREFIX}jobs:finished"
COUNTS_KEY = f"{PREFIX}jobs:counts"
UNFINISHED_KEY = f"{PREFIX}jobs:unfinished"
RECOVERED_KEY = f"{PREFIX}jobs:recovered"
LOOKED_AFTER_KEY = f"{PREFIX}jobs:looked_after"
CALLBACKS_DUE_KEY = f"{PREFIX}callbacks:due"
DELIVERIES_KEY = f"{PREFIX}callbacks:deliveries"
PAUSED_ENDPOINTS_KEY = f"{PREFIX}endpoints:paused"

# Far more than end while a web process reconnects; what it missed by then it reads again anyway.
FINISHED_KEPT = 10_000

_START = """
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'queued' and status ~= 'running' then return false end
redis.call('HSET', KEYS[1], 'status', 'running')
redis.call('HSETNX', KEYS[1], 'started_at', ARGV[1])
redis.call('HINCRBY', KEYS[1], 'attempts', ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return {redis.call('HGETALL', KEYS[1]), redis.call('GET', KEYS[3])}
"""

_PROGRESS = """
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'queued' and status ~= 'running' then return 0 end
redis.call('HSET', KEYS[1], 'progress', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
"""

# KEYS: record, photo, active, finished, counts, due, unfinished, then those of cache entries.
# ARGV: status, time, field, its value, seconds to keep the record, id, unix time, FINISHED_KEPT, detail, then value and
# seconds of each cache entry.
_FINISH = """
local function answer(has_ended)
    if ARGV[1] == 'cancelled' then return {has_ended, redis.call('HGETALL', KEYS[1])} end
    return {has_ended}
end
for number = 8, #KEYS do
    redis.call('SET', KEYS[number], ARGV[2 * number - 6], 'EX', ARGV[2 * number - 5])
end
local record = redis.call('HMGET', KEYS[1], 'status', 'kind', 'callback_url', 'counted_as')
if record[1] ~= 'queued' and record[1] ~= 'running' then return answer(0) end
redis.call('HSET', KEYS[1], 'status', ARGV[1], 'finished_at', ARGV[2], ARGV[3], ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('DEL', KEYS[2])
redis.call('ZREM', KEYS[3], ARGV[6])
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[8], '*', 'id', ARGV[6])
redis.call('HINCRBY', KEYS[5], record[2] .. ':' .. ARGV[1] .. ARGV[9], 1)
if record[3] then redis.call('ZADD', KEYS[6], ARGV[7], ARGV[6]) end
for name in string.gmatch(record[4] or '', '%S+') do
    if redis.call('HINCRBY', KEYS[7], name, -1) <= 0 then redis.call('HDEL', KEYS[7], name) end
end
return answer(1)
"""

# KEYS: active, unfinished. ARGV: what the keys of records begin with.
_RECOUNT = """
local counts = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    for name in string.gmatch(redis.call('HGET', ARGV[1] .. id, 'counted_as') or '', '%S+') do
        counts[name] = (counts[name] or 0) + 1
    end
end
redis.call('DEL', KEYS[2])
for name, count in pairs(counts) do redis.call('HSET', KEYS[2], name, count) end
"""


def job_key(job_id: str, part: str = "") -> str:
    """Return the Redis key of a job's record, or of a `part` of it."""
    return f"{PREFIX}job:{job_id}" + (f":{part}" if part else "")


def now_iso() -> str:
    """Return the current time in UTC as ISO 8601, as pydantic writes it to the wire."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def new_job_id() -> str:
    """Return an id that no job has."""
    return uuid.uuid4().hex


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the hash that a script gave as name, value, name, value."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


@dataclass(frozen=True)
class Started:
    """A job that a worker took in hand, and the photo that came with it while it is needed."""

    record: JobRecord
    image: bytes | None


class Jobs:
    """Creates, reads and moves job records."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self._start = redis.register_script(_START)
        self._progress = redis.register_script(_PROGRESS)
        self._finish = redis.register_script(_FINISH)
        self._recount = redis.register_script(_RECOUNT)

    def create(
        self,
        kind: JobKind,
        parameters: Mapping[str, Any],
        *,
        job_id: str | None = None,
        image: bytes | None = None,
        callback_url: str | None = None,
        owner: str | None = None,
        origin: Mapping[str, str] | None = None,
        message: TaskMessage | None = None,
        counted_as: Sequence[str] = (),
        learn: Callable[[str, int], None] | None = None,
        keep: Callable[[JobRecord], None] | None = None,
    ) -> JobRecord:
        """Write the record of a new job, its photo and its message in one transaction: all of it, or nothing.

        Args:
            kind: what it does.
            parameters: what its task needs to know; JSON values.
            job_id: as `new_job_id` gives it, where the message or a waiter names it already.
            image: bytes of the uploaded photo.
            callback_url: where it is posted when it has ended.
            owner: id of the API key that made it.
            origin: of the request that made it: `request_id`, `traceparent` where requests are traced, and
                `predecessor` where its API key replaced another one a while ago.
            message: of the task that begins it; without one, recovery begins it.
            counted_as: what it counts as until it has ended; texts without spaces.
            learn: told each of `counted_as` with its new count, and the queue's key with the queue's length.
            keep: told the record before anything is written.
        """
        job = _new_record(job_id, kind, JobStatus.QUEUED, parameters, callback_url, owner, origin, counted_as)
        if keep is not None:
            keep(job)
        key, lease_end = job_key(job.id), time.time() + self._settings.job_lease_seconds
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(key, mapping=cast("dict[Any, Any]", job.fields))
            pipe.expire(key, self._settings.job_ttl_seconds)
            if image is not None:
                pipe.set(job_key(job.id, "image"), image, ex=2 * self._settings.search_deadline_seconds)
            pipe.zadd(ACTIVE_KEY, {job.id: lease_end})
            for name in counted_as:
                pipe.hincrby(UNFINISHED_KEY, name, 1)
            if message is not None:
                pipe.lpush(message.key, message.text)
            answers = pipe.execute()
        if learn is not None:
            counted = [*counted_as, message.key] if message is not None else [*counted_as]
            for name, count in zip(reversed(counted), reversed(answers), strict=False):
                learn(name, count)
        return job

    def create_succeeded(
        self,
        kind: JobKind,
        parameters: Mapping[str, Any],
        result: bytes,
        *,
        job_id: str | None = None,
        callback_url: str | None = None,
        owner: str | None = None,
        origin: Mapping[str, str] | None = None,
    ) -> JobRecord:
        """Write the record of a job whose result, as JSON text, was known before it was asked for."""
        job = _new_record(job_id, kind, JobStatus.SUCCEEDED, parameters, callback_url, owner, origin)
        fields = {**job.fields, b"finished_at": job.fields[b"created_at"], b"result": result}
        key = job_key(job.id)
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(key, mapping=cast("dict[Any, Any]", fields))
            pipe.expire(key, self._settings.job_ttl_seconds)
            pipe.hincrby(COUNTS_KEY, f"{kind}:{JobStatus.SUCCEEDED}:{AnsweredFrom.RESULT_CACHE}", 1)
            if callback_url is not None:
                pipe.zadd(CALLBACKS_DUE_KEY, {job.id: time.time()})
            pipe.execute()
        return JobRecord(job.id, fields)

    def get(self, job_id: str) -> JobRecord:
        """Read a job.

        Raises:
            JobNotFound: if there is no such record (any more).
        """
        return self._record(job_id, cast("dict[bytes, bytes]", self._redis.hgetall(job_key(job_id))))

    def get_many(self, job_ids: Sequence[str]) -> list[JobRecord]:
        """Read several jobs at once; those that are gone are left out."""
        if not job_ids:
            return []
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hgetall(job_key(job_id))
            found = zip(job_ids, pipe.execute(), strict=True)
        return [self._record(job_id, fields) for job_id, fields in found if b"kind" in fields]

    def _record(self, job_id: str, fields: dict[bytes, bytes]) -> JobRecord:
        if b"kind" not in fields:
            raise JobNotFound(f"No job {job_id!r}; results can be read for {self._settings.job_ttl_seconds} seconds.")
        if b"callback_url" not in fields:
            return JobRecord(job_id, fields)
        deliveries = cast("list[bytes]", self._redis.lrange(job_key(job_id, "deliveries"), 0, -1))
        return JobRecord(job_id, fields, tuple(deliveries))

    def start(self, job_id: str, *, counts_as_attempt: bool = True) -> Started | None:
        """Take a job in hand for `job_lease_seconds`; call `renew` while working on it.

        Returns:
            The record and the photo, or None if the job has ended or is gone, so that there is nothing to do.
        """
        lease_end = time.time() + self._settings.job_lease_seconds
        arguments: list[str | float] = [
            now_iso(),
            lease_end,
            int(counts_as_attempt),
            job_id,
            self._settings.job_ttl_seconds,
        ]
        keys = [job_key(job_id), ACTIVE_KEY, job_key(job_id, "image")]
        found = self._start(keys=keys, args=arguments)
        return None if found is None else Started(JobRecord(job_id, _pairs(found[0])), found[1])

    def return_attempt(self, job_id: str) -> None:
        """Take back the try that `start` counted, since the job itself is not to blame for its failure."""
        if self._redis.hexists(job_key(job_id), "kind"):
            self._redis.hincrby(job_key(job_id), "attempts", -1)

    def count_first_attempt(self, job_id: str) -> None:
        """Count a job that has come further as begun once, whatever became of its workers before."""
        if self._redis.hexists(job_key(job_id), "kind"):
            self._redis.hset(job_key(job_id), "attempts", "1")

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

    def succeed(
        self,
        job_id: str,
        result: Mapping[str, Any] | bytes,
        cache: Sequence[CacheEntry] = (),
        answered_from: AnsweredFrom | None = None,
    ) -> bool:
        """End a job with its result, and keep what was learnt on the way.

        Args:
            job_id: id of the job.
            result: JSON values, or the text of them as `json_bytes` writes it.
            cache: written whether or not the job had ended before.
            answered_from: of a search, counted with its end.

        Returns:
            False if it had ended before.
        """
        text = result if isinstance(result, bytes) else json_bytes(result)
        return bool(self._end(job_id, JobStatus.SUCCEEDED, "result", text, cache, answered_from or "")[0])

    def fail(self, job_id: str, error: LookalikeError) -> bool:
        """End a job with a stable error code; returns False if it had ended before."""
        return bool(self._end(job_id, JobStatus.FAILED, "error", json_bytes(error.to_wire()), detail=error.code)[0])

    def cancel(self, job_id: str) -> JobRecord:
        """End a job because its client doesn't want it any more.

        Raises:
            JobNotFound: if there is no such job.
            JobAlreadyFinished: if it has succeeded or failed; cancelling twice is fine.
        """
        _, fields = self._end(job_id, JobStatus.CANCELLED, "cancelled_at", now_iso().encode())
        record = self._record(job_id, _pairs(fields))
        if record.status is not JobStatus.CANCELLED:
            raise JobAlreadyFinished(f"Job {job_id} has {record.status.value} already; there is nothing to cancel.")
        return record

    def _end(
        self,
        job_id: str,
        status: JobStatus,
        field: str,
        value: bytes,
        cache: Sequence[CacheEntry] = (),
        detail: str = "",
    ) -> Any:
        keys = [
            job_key(job_id),
            job_key(job_id, "image"),
            ACTIVE_KEY,
            FINISHED_KEY,
            COUNTS_KEY,
            CALLBACKS_DUE_KEY,
            UNFINISHED_KEY,
            *(entry.key for entry in cache),
        ]
        arguments: list[str | bytes | float] = [status.value, now_iso(), field, value]
        arguments += [self._settings.job_ttl_seconds, job_id, time.time(), FINISHED_KEPT]
        arguments.append(f":{detail}" if detail else "")
        for entry in cache:
            arguments += [entry.value, entry.ttl_seconds]
        return self._finish(keys=keys, args=arguments)

    def overdue(self, limit: int = 100) -> list[str]:
        """Return ids of jobs whose lease or start is overdue, the longest first."""
        found = self._redis.zrangebyscore(ACTIVE_KEY, 0, time.time(), start=0, num=limit)
        return [job_id.decode() for job_id in cast("list[bytes]", found)]

    def note_looked_after(self) -> None:
        """Note that recovery has looked at all jobs that are overdue."""
        self._redis.set(LOOKED_AFTER_KEY, time.time())

    def count_recovery(self, kind: JobKind) -> None:
        """Count that a job which stood still was sent again."""
        self._redis.hincrby(RECOVERED_KEY, kind.value, 1)

    def drop_active(self, job_id: str) -> None:
        """Stop watching over a job whose record is gone."""
        self._redis.zrem(ACTIVE_KEY, job_id)

    def recount_unfinished(self) -> None:
        """Count the unfinished jobs anew.

        A transaction that was sent twice, since its answer was lost, counted its job twice; a job whose record expired
        before its end is counted still.
        """
        self._recount(keys=[ACTIVE_KEY, UNFINISHED_KEY], args=[job_key("")])

    def add_delivery(self, job_id: str, delivery: Delivery) -> None:
        """Log one try of a job's callback and plan the next, if there is to be one."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.rpush(job_key(job_id, "deliveries"), delivery.model_dump_json())
            pipe.expire(job_key(job_id, "deliveries"), self._settings.job_ttl_seconds)
            pipe.hincrby(DELIVERIES_KEY, _outcome(delivery), 1)
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


def _new_record(
    job_id: str | None,
    kind: JobKind,
    status: JobStatus,
    parameters: Mapping[str, Any],
    callback_url: str | None,
    owner: str | None,
    origin: Mapping[str, str] | None,
    counted_as: Sequence[str] = (),
) -> JobRecord:
    fields = {
        b"kind": kind.value.encode(),
        b"status": status.value.encode(),
        b"parameters": json_bytes(parameters),
        b"created_at": now_iso().encode(),
    }
    if callback_url is not None:
        fields[b"callback_url"] = callback_url.encode()
    if owner is not None:
        fields[b"owner"] = owner.encode()
    if counted_as:
        fields[b"counted_as"] = " ".join(counted_as).encode()
    for name, value in (origin or {}).items():
        fields[name.encode()] = value.encode()
    return JobRecord(job_id or new_job_id(), fields)


def _outcome(delivery: Delivery) -> str:
    if delivery.paused:
        return "put_off"
    if delivery.error is None:
        return "delivered"
    return "given_up" if delivery.next_attempt_at is None else "to_be_retried"
