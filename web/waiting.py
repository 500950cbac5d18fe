"""Answers about jobs: wait for the end as far as the client wants and there is a place to wait, then 200 or 202."""

import re

from flask import Response, jsonify, request

from shared.job_record import JobRecord
from web.services import Services

_PREFER_WAIT = re.compile(r"\bwait\s*=\s*\"?(\d{1,6})\b", re.IGNORECASE)


def preferred_wait(services: Services) -> int:
    """Return the seconds of `Prefer: wait=N` (RFC 7240), at most what the server allows; 0 without it."""
    match = _PREFER_WAIT.search(request.headers.get("Prefer", ""))
    return min(int(match.group(1)), services.settings.wait_max_seconds) if match else 0


def accepts_cached() -> bool:
    """Tell whether the client takes an answer from a cache; `Cache-Control: no-cache` says no."""
    return "no-cache" not in request.headers.get("Cache-Control", "").lower()


def wait_for_end(services: Services, job_id: str, seconds: int) -> JobRecord:
    """Return a job when it has ended, or after some seconds; at once while all places to wait are taken.

    Raises:
        JobNotFound: if there is no such job.
    """
    seconds = min(seconds, services.settings.wait_max_seconds)
    if seconds <= 0 or not services.waiting_places.acquire(blocking=False):
        return services.jobs.get(job_id)
    try:
        return services.jobs.wait(job_id, seconds)
    finally:
        services.waiting_places.release()


def job_response(record: JobRecord) -> Response:
    """Answer with a new job, and where to ask for it again."""
    response = jsonify(record.to_wire())
    response.headers["Location"] = f"/v1/jobs/{record.id}"
    return response


def send_message(services: Services, job_id: str, task: str) -> None:
    """Put the message of a recorded job on its queue; a job that can't be sent is forgotten."""
    try:
        services.tasks.send(task, job_id)
    except Exception:
        services.jobs.forget(job_id)
        raise


def answer_with_sent(services: Services, job_id: str) -> Response:
    """Answer with a job that a worker will do: 200 if the client asked to wait and it has ended, else 202."""
    wait = preferred_wait(services)
    record = wait_for_end(services, job_id, wait)
    response = job_response(record)
    if wait and record.status.is_final:
        response.headers["Preference-Applied"] = f"wait={wait}"
    else:
        response.status_code = 202
        response.headers["Retry-After"] = str(services.settings.retry_after_seconds)
    return response
