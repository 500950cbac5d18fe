"""Answers about jobs: wait for the end as far as the client wants and there is a place to wait, then 200 or 202."""

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flask import Response, request
from redis.exceptions import RedisError

from shared.errors import JobNotFound, RedisUnavailable
from shared.job_record import JobRecord
from shared.logs import add_log_ids
from shared.queues import TASK_QUEUES, task_of
from shared.schemas import JobKind
from web.access import caller, check_visible
from web.job_ends import Watch
from web.request_log import origin
from web.services import Services

log = logging.getLogger(__name__)

_PREFER_WAIT = re.compile(r"\bwait\s*=\s*\"?(\d{1,6})\b", re.IGNORECASE)


def preferred_wait(services: Services) -> int:
    """Return the seconds of `Prefer: wait=N` (RFC 7240), at most what the server allows; 0 without it."""
    match = _PREFER_WAIT.search(request.headers.get("Prefer", ""))
    return min(int(match.group(1)), services.settings.wait_max_seconds) if match else 0


def accepts_cached() -> bool:
    """Tell whether the client takes an answer from a cache; `Cache-Control: no-cache` says no."""
    return "no-cache" not in request.headers.get("Cache-Control", "").lower()


@contextmanager
def _place_to_wait(services: Services, job_id: str, seconds: int) -> Iterator[Watch | None]:
    """Give what is woken when the job ends; None if nobody wants to wait, or while all places are taken."""
    if seconds <= 0 or not services.waiting_places.acquire(blocking=False):
        yield None
        return
    try:
        with services.job_ends.watching(job_id) as watch:
            yield watch
    finally:
        services.waiting_places.release()


def _record_at_end(read: Callable[[str], JobRecord], job_id: str, watch: Watch, seconds: float) -> JobRecord:
    deadline = time.monotonic() + seconds
    while True:
        in_time = watch.woken.wait(deadline - time.monotonic())
        watch.woken.clear()
        record = watch.record or read(job_id)
        if record.status.is_final or not in_time:
            return record


def wait_for_end(
    services: Services, job_id: str, seconds: int, read: Callable[[str], JobRecord] | None = None
) -> JobRecord:
    """Return a job when it has ended, or after some seconds; at once while all places to wait are taken.

    Args:
        services: the parts of this web tier.
        job_id: which.
        seconds: how long to wait, at most as the settings allow.
        read: reads a job; None: `services.job`, so that an import that Redis has lost is there again.

    Raises:
        JobNotFound: if there is no such job, or it is another key's.
    """
    read = read or services.job
    seconds = min(seconds, services.settings.wait_max_seconds)
    with _place_to_wait(services, job_id, seconds) as watch:
        record = read(job_id)
        check_visible(record)
        if watch is None or record.status.is_final:
            return record
        return _record_at_end(read, job_id, watch, seconds)


def json_response(body: bytes) -> Response:
    """Answer with JSON text."""
    return Response(body, mimetype="application/json")


def job_response(record: JobRecord) -> Response:
    """Answer with a new job, and where to ask for it again."""
    add_log_ids(job_id=record.id)
    response = json_response(record.to_json())
    response.headers["Location"] = f"/v1/jobs/{record.id}"
    return response


def accepted_response(services: Services, record: JobRecord) -> Response:
    """Answer with a job that was accepted: 200 if it has ended, else 202, and when to ask again."""
    response = job_response(record)
    if not record.status.is_final:
        response.status_code = 202
        response.headers["Retry-After"] = str(services.settings.retry_after_seconds)
    elif wait := preferred_wait(services):
        response.headers["Preference-Applied"] = f"wait={wait}"
    return response


def send_job(
    services: Services,
    job_id: str,
    kind: JobKind,
    parameters: Mapping[str, Any],
    *,
    image: bytes | None = None,
    callback_url: str | None = None,
    keep: Callable[[JobRecord], None] | None = None,
    clear: Callable[[], None] = lambda: None,
) -> Response:
    """Record a job, send its message, and answer.

    Args:
        services: the parts of this web tier.
        job_id: of the new job; see `web.idempotency.once`.
        kind: what the job does.
        parameters: what its task needs to know.
        image: bytes of the uploaded photo.
        callback_url: where the finished job is posted.
        keep: told the record before it is written.
        clear: removes what was kept for the job; called if there can be no job.

    Returns:
        200 if the client asked to wait and the job has ended, else 202.

    Raises:
        TooManyJobs: if this client has as many unfinished ones as it may have.
        QueueFull: if the queue has no room for anybody's.
        RedisUnavailable: if Redis has lost the job when the wait is over.
    """
    wait = preferred_wait(services)
    task = task_of(kind, parameters)
    message = services.messages.of(task, job_id)
    with _place_to_wait(services, job_id, wait) as watch:
        try:
            counted_as = services.bounds.check(TASK_QUEUES[task])
            record = services.jobs.create(
                kind,
                parameters,
                job_id=job_id,
                image=image,
                callback_url=callback_url,
                owner=caller().owner,
                origin=origin(),
                message=message,
                counted_as=counted_as,
                learn=services.bounds.learn,
                keep=keep,
            )
        except Exception:
            clear()
            raise
        if watch is not None:
            try:
                read = services.jobs.get if keep is None else services.job  # what is not kept needs no database
                record = _record_at_end(read, job_id, watch, wait)
            except JobNotFound:
                if keep is None:
                    clear()
                    raise RedisUnavailable(
                        "Redis lost its data while this job waited, and the job with it. Send the request again."
                    ) from None
            except RedisError as error:
                # The job is sent: a client that was told that it failed would send it again.
                log.warning("Redis failed while a client waited for job %s: %s", job_id, error)
    return accepted_response(services, record)
