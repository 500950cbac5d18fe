"""Delivering the callback of a finished job: one try, its log entry, and when to try next."""

import logging
from datetime import UTC, datetime, timedelta
from random import SystemRandom

from shared.errors import JobNotFound
from shared.jobs import Jobs
from shared.logs import add_log_ids, log_ids
from shared.queues import TaskSender
from shared.schemas import Delivery
from shared.settings import Settings
from worker.fetcher import GuardedFetcher
from worker.webhooks import backoff_seconds, deliver, job_finished_body

log = logging.getLogger(__name__)

# Beside the timeout: for the message to be taken, and for a name to be resolved. The first is longer, so that a try
# whose worker died counts as ended when the next is due.
DISPATCH_MARGIN_SECONDS = 60
TRY_MARGIN_SECONDS = 30
CLOCK_DIFFERENCE = timedelta(seconds=1)  # between the hosts of two workers, at most


def dispatch_callbacks(jobs: Jobs, tasks: TaskSender, settings: Settings) -> int:
    """Send a message for every callback that is due; returns how many.

    The times of the tries live in Redis, not in delayed messages, so a restart loses none.
    """
    # Time enough for the message to be taken and the try to end; then it counts as lost and is due again.
    due = jobs.claim_due_callbacks(DISPATCH_MARGIN_SECONDS + settings.webhook_timeout_seconds)
    for job_id in due:
        tasks.send("deliver_callback", job_id)
    return len(due)


def deliver_callback(job_id: str, jobs: Jobs, fetcher: GuardedFetcher, settings: Settings) -> None:
    """Try to deliver the callback of a job, and log the try under the job.

    Where callbacks queue up there are several messages for one: only one posts at a time, and none before it is due.
    """
    if not jobs.claim_delivery(job_id, TRY_MARGIN_SECONDS + settings.webhook_timeout_seconds):
        return
    try:
        with log_ids({"job_id": job_id}):
            _deliver_claimed(job_id, jobs, fetcher, settings)
    finally:
        jobs.release_delivery(job_id)


def _deliver_claimed(job_id: str, jobs: Jobs, fetcher: GuardedFetcher, settings: Settings) -> None:
    try:
        job = jobs.get(job_id)
    except JobNotFound:
        jobs.drop_callback(job_id)
        return
    add_log_ids(**job.log_ids)
    if job.callback_url is None or job.finished_at is None or settings.webhook_secret is None:
        jobs.drop_callback(job_id)
        return
    if job.deliveries:
        due_at = job.deliveries[-1]["next_attempt_at"]
        if due_at is None:
            jobs.drop_callback(job_id)  # there is nothing to try any more
            return
        if datetime.fromisoformat(due_at) > datetime.now(UTC) + CLOCK_DIFFERENCE:
            return
    # Each try sends the same bytes, so the log of the tries is not part of them.
    body = job_finished_body({**job.to_wire(), "deliveries": []}, job.finished_at)
    at, number = datetime.now(UTC), len(job.deliveries) + 1
    secret = settings.webhook_secret.get_secret_value()
    attempt = deliver(fetcher, job.callback_url, secret, f"msg_{job_id}", body, at)
    next_at = None
    if not attempt.succeeded and not attempt.is_permanent and number < settings.webhook_max_attempts:
        wait = backoff_seconds(number, settings.webhook_backoff_seconds, SystemRandom())
        next_at = datetime.now(UTC) + timedelta(seconds=wait)
    delivery = Delivery(attempt=number, at=at, status=attempt.status, error=attempt.error, next_attempt_at=next_at)
    jobs.add_delivery(job_id, delivery)
    if not attempt.succeeded:
        log.warning("Callback of job %s, try %d: %s", job_id, number, attempt.error)
