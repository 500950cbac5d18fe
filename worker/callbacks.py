"""Delivering the callback of a finished job: one try, its log entry, and when to try next."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import SystemRandom
from typing import cast
from urllib.parse import urlsplit

from shared.errors import JobNotFound
from shared.job_record import JobRecord
from shared.jobs import Jobs
from shared.logs import add_log_ids, log_ids
from shared.queues import TaskSender
from shared.schemas import Delivery
from shared.settings import Settings
from shared.webhook_secrets import signing_secrets
from worker.callback_endpoints import CallbackEndpoints
from worker.fetcher import GuardedFetcher
from worker.webhooks import backoff_seconds, deliver, job_finished_body

log = logging.getLogger(__name__)

# Beside the timeout: for the message to be taken, and for a name to be resolved. The first is longer, so that a try
# whose worker died counts as ended when the next is due.
DISPATCH_MARGIN_SECONDS = 60
TRY_MARGIN_SECONDS = 30
CLOCK_DIFFERENCE = timedelta(seconds=1)  # between the hosts of two workers, at most
# Over so long the callbacks that waited for an endpoint are spread when its pause is over.
AFTER_PAUSE_SECONDS = 30.0

_random = SystemRandom()


def dispatch_callbacks(jobs: Jobs, tasks: TaskSender, settings: Settings) -> int:
    """Send a message for every callback that is due; returns how many.

    The times of the tries live in Redis, not in delayed messages, so a restart loses none.
    """
    # Time enough for the message to be taken and the try to end; then it counts as lost and is due again.
    due = jobs.claim_due_callbacks(DISPATCH_MARGIN_SECONDS + settings.webhook_timeout_seconds)
    for job_id in due:
        tasks.send("deliver_callback", job_id)
    return len(due)


def deliver_callback(
    job_id: str, jobs: Jobs, fetcher: GuardedFetcher, endpoints: CallbackEndpoints, settings: Settings
) -> None:
    """Try to deliver the callback of a job, and log the try under the job.

    Where callbacks queue up there are several messages for one: only one posts at a time, and none before it is due.
    """
    try_seconds = TRY_MARGIN_SECONDS + settings.webhook_timeout_seconds
    if not jobs.claim_delivery(job_id, try_seconds):
        return
    try:
        with log_ids({"job_id": job_id}):
            job = _job_to_tell(job_id, jobs)
            secrets = () if job is None else signing_secrets(settings, job.owner, job.predecessor)
            if job is None or not secrets:
                jobs.drop_callback(job_id)
            elif _is_due(job):
                add_log_ids(**job.log_ids)
                may_try = endpoints.begin(job, try_seconds)
                if may_try.paused_until is None:
                    delivery = _try(job, fetcher, endpoints, may_try.is_probe, secrets, settings)
                else:
                    delivery = _put_off(job, may_try.paused_until)
                jobs.add_delivery(job_id, delivery)
    finally:
        jobs.release_delivery(job_id)


def _job_to_tell(job_id: str, jobs: Jobs) -> JobRecord | None:
    """Return a job whose callback is to be posted, now or later; None if there is nothing to do any more."""
    try:
        job = jobs.get(job_id)
    except JobNotFound:
        return None
    is_over = bool(job.deliveries) and job.deliveries[-1]["next_attempt_at"] is None
    return None if job.callback_url is None or job.finished_at is None or is_over else job


def _is_due(job: JobRecord) -> bool:
    if not job.deliveries:
        return True
    return datetime.fromisoformat(job.deliveries[-1]["next_attempt_at"]) <= datetime.now(UTC) + CLOCK_DIFFERENCE


def _number(job: JobRecord) -> int:
    """Return the number of a callback's next try; those that were put off don't count."""
    return 1 + sum(not delivery.get("paused", False) for delivery in job.deliveries)


def _put_off(job: JobRecord, paused_until: float) -> Delivery:
    """Plan a try for the time when the endpoint's pause is over."""
    return Delivery(
        attempt=_number(job),
        at=datetime.now(UTC),
        paused=True,
        error="The endpoint is paused, since many tries in a row have failed.",
        next_attempt_at=_after_pause(paused_until),
    )


def _after_pause(paused_until: float) -> datetime:
    """Return when to try again: a while after the pause, so that the first one finds out whether it is over."""
    return datetime.fromtimestamp(paused_until + _random.uniform(0, AFTER_PAUSE_SECONDS), UTC)


def _try(
    job: JobRecord,
    fetcher: GuardedFetcher,
    endpoints: CallbackEndpoints,
    is_probe: bool,
    secrets: Sequence[str],
    settings: Settings,
) -> Delivery:
    url, finished_at = cast(str, job.callback_url), cast(datetime, job.finished_at)
    # Each try sends the same bytes, so the log of the tries is not part of them.
    body = job_finished_body({**job.to_wire(), "deliveries": []}, finished_at)
    at, number = datetime.now(UTC), _number(job)
    attempt = deliver(fetcher, url, secrets, f"msg_{job.id}", body, at)
    paused_until = None
    if attempt.succeeded:
        endpoints.succeeded(job)
    elif not attempt.is_permanent:
        paused_until = endpoints.failed(job, is_probe, urlsplit(url).netloc)
    next_at = None
    if not attempt.succeeded and not attempt.is_permanent and number < settings.webhook_max_attempts:
        wait = backoff_seconds(number, settings.webhook_backoff_seconds, _random)
        next_at = datetime.now(UTC) + timedelta(seconds=wait)
        if paused_until is not None:
            next_at = max(next_at, _after_pause(paused_until))
    if not attempt.succeeded:
        log.warning("Callback of job %s, try %d: %s", job.id, number, attempt.error)
    return Delivery(attempt=number, at=at, status=attempt.status, error=attempt.error, next_attempt_at=next_at)
