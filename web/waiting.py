"""Answers about jobs: wait for the end as far as the client wants, then 200 or 202."""

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


def job_response(services: Services, record: JobRecord) -> Response:
    """Answer with a job that may still be at work: 200 when it has ended, else 202 and where to ask again."""
    response = jsonify(record.to_wire())
    if "Prefer" in request.headers and preferred_wait(services):
        response.headers["Preference-Applied"] = f"wait={preferred_wait(services)}"
    response.headers["Location"] = f"/v1/jobs/{record.id}"
    if not record.status.is_final:
        response.status_code = 202
        response.headers["Retry-After"] = str(services.settings.retry_after_seconds)
    return response


def send_and_answer(services: Services, job_id: str, task: str) -> Response:
    """Put the message of a recorded job on its queue and answer; a job that can't be sent is forgotten."""
    try:
        services.tasks.send(task, job_id)
    except Exception:
        services.jobs.forget(job_id)
        raise
    return job_response(services, services.jobs.wait(job_id, preferred_wait(services)))
