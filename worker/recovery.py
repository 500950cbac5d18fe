"""Recovery: jobs whose worker died, or whose message was lost, are run again or fail with a stable code."""

import logging
from datetime import UTC, datetime, timedelta

from redis import Redis

from shared.errors import DeadlineExceeded, JobNotFound, WorkerLost
from shared.job_record import JobRecord
from shared.jobs import Jobs
from shared.queues import BULK, TASK_QUEUES, TaskSender, queue_key, task_of
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
            _recover_import(job, jobs, redis, tasks)
        else:
            _recover_single(job, jobs, redis, tasks, settings)


def _recover_single(job: JobRecord, jobs: Jobs, redis: Redis, tasks: TaskSender, settings: Settings) -> None:
    task = task_of(job.kind, job.parameters)
    if job.kind is JobKind.SEARCH and is_past_deadline(job, settings):
        limit = settings.search_deadline_seconds
        jobs.fail(job.id, DeadlineExceeded(f"Not done within {limit} seconds. Search again, or add search workers."))
    elif job.status is JobStatus.RUNNING and job.attempts >= settings.job_max_attempts:
        jobs.fail(job.id, WorkerLost(f"The job was tried {job.attempts} times and its worker died each time."))
    else:
        jobs.renew(job.id)
        if job.status is JobStatus.RUNNING or _is_empty(redis, TASK_QUEUES[task]):
            log.warning("Job %s (%s) stands still; sending it again", job.id, job.kind.value)
            tasks.send(task, job.id)


def _recover_import(job: JobRecord, jobs: Jobs, redis: Redis, tasks: TaskSender) -> None:
    jobs.renew(job.id)
    if _is_empty(redis, BULK):
        log.warning("Import %s stands still; planning what is left of it", job.id)
        tasks.send("plan_import", job.id)


def _is_empty(redis: Redis, queue: str) -> bool:
    """Tell whether no message waits: a job that nobody works on may just be behind others, until this says no.

    Messages do get lost: Redis hands one to a worker that dies before it has noted down that it has it.
    """
    return redis.llen(queue_key(queue)) == 0
