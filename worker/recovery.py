"""Recovery: jobs whose worker died, or whose message was lost, are run again or fail with a stable code."""

import logging
from datetime import UTC, datetime, timedelta
from typing import cast

from redis import Redis

from shared.errors import DeadlineExceeded, JobNotFound, WorkerLost
from shared.jobs import JobRecord, Jobs
from shared.queues import BULK, TaskSender, queue_key
from shared.schemas import JobKind, JobStatus
from shared.settings import Settings

log = logging.getLogger(__name__)


def is_past_deadline(job: JobRecord, settings: Settings) -> bool:
    """Tell whether a search is not worth answering any more."""
    return datetime.now(UTC) - job.created_at > timedelta(seconds=settings.search_deadline_seconds)


def recover_jobs(jobs: Jobs, redis: Redis, tasks: TaskSender, settings: Settings) -> None:
    """Look at every job whose lease, or whose time to start, has run out."""
    for job_id in jobs.overdue():
        try:
            job = jobs.get(job_id)
        except JobNotFound:
            jobs.drop_active(job_id)
            continue
        if job.status.is_final:
            jobs.drop_active(job_id)
        elif job.kind is JobKind.IMPORT and "mode" in job.parameters:
            _recover_import(job, jobs, redis, tasks, settings)
        else:
            _recover_single(job, jobs, tasks, settings)


def task_of(job: JobRecord) -> str:
    """Return the task that starts a job."""
    if job.kind is JobKind.SEARCH:
        return "search"
    return "plan_import" if "mode" in job.parameters else "write_item"


def _recover_single(job: JobRecord, jobs: Jobs, tasks: TaskSender, settings: Settings) -> None:
    is_search = job.kind is JobKind.SEARCH
    if is_search and is_past_deadline(job, settings):
        jobs.fail(
            job.id, DeadlineExceeded(f"Not done within {settings.search_deadline_seconds} seconds. Search again.")
        )
    elif job.attempts >= settings.job_max_attempts:
        jobs.fail(job.id, WorkerLost(f"The job was tried {job.attempts} times and its worker died each time."))
    else:
        log.warning("Job %s (%s) is overdue; sending it again", job.id, job.kind.value)
        jobs.renew(job.id, settings.search_deadline_seconds if job.status is JobStatus.QUEUED else None)
        tasks.send(task_of(job), job.id)


def _recover_import(job: JobRecord, jobs: Jobs, redis: Redis, tasks: TaskSender, settings: Settings) -> None:
    """An import's chunks may wait long behind others; only an empty queue proves that a message was lost."""
    jobs.renew(job.id)
    if cast(int, redis.llen(queue_key(BULK))) == 0:
        log.warning("Import %s stands still; planning what is left of it", job.id)
        tasks.send("plan_import", job.id)
