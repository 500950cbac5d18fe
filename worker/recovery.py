"""Recovery: jobs whose worker died, or whose message was lost, are run again or fail with a stable code."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import cast

from redis import Redis

from shared.errors import DeadlineExceeded, JobNotFound, WorkerLost
from shared.job_record import JobRecord
from shared.jobs import Jobs
from shared.logs import log_ids
from shared.queues import BULK, TASK_QUEUES, TaskSender, queue_key, task_again_of, task_of
from shared.schemas import JobKind, JobStatus
from shared.settings import Settings

log = logging.getLogger(__name__)

IsWaiting = Callable[[str, str], bool]


def is_past_deadline(job: JobRecord, settings: Settings) -> bool:
    """Tell whether a search is not worth answering any more."""
    return datetime.now(UTC) - job.created_at > timedelta(seconds=settings.search_deadline_seconds)


def recover_jobs(jobs: Jobs, redis: Redis, tasks: TaskSender, settings: Settings) -> None:
    """Look at every job whose lease, or whose time to start, has run out."""
    messages = cache(lambda queue: b"".join(cast("list[bytes]", redis.lrange(queue_key(queue), 0, -1))))

    def is_waiting(job_id: str, queue: str) -> bool:
        """Tell whether a message of the job is on its queue.

        If none is, it was lost with the worker that had it. One that waits may be the one that begins the job again.
        """
        return job_id.encode() in messages(queue)  # Celery repeats the arguments in its headers, as text

    for job_id in jobs.overdue():
        try:
            job = jobs.get(job_id)
        except JobNotFound:
            jobs.drop_active(job_id)
            continue
        with log_ids(job.log_ids):
            if job.status.is_final:
                jobs.drop_active(job_id)
            elif job.kind is JobKind.BATCH_SEARCH:
                _recover_batch(job, jobs, is_waiting, tasks, settings)
            elif job.kind is JobKind.IMPORT and "mode" in job.parameters:
                _recover_import(job, jobs, is_waiting, tasks)
            else:
                _recover_single(job, jobs, is_waiting, tasks, settings)
    jobs.note_looked_after()


def _recover_single(job: JobRecord, jobs: Jobs, is_waiting: IsWaiting, tasks: TaskSender, settings: Settings) -> None:
    has_begun = job.status is JobStatus.RUNNING
    task = (task_again_of if has_begun else task_of)(job.kind, job.parameters)
    if job.kind is JobKind.SEARCH and is_past_deadline(job, settings):
        limit = settings.search_deadline_seconds
        jobs.fail(job.id, DeadlineExceeded(f"Not done within {limit} seconds. Search again, or add search workers."))
    elif has_begun and job.attempts >= settings.job_max_attempts:
        log.error("Job %s (%s) is given up: its worker died %d times", job.id, job.kind.value, job.attempts)
        jobs.fail(job.id, WorkerLost(f"The job was tried {job.attempts} times and its worker died each time."))
    else:
        jobs.renew(job.id)
        if not is_waiting(job.id, TASK_QUEUES[task]):
            log.warning("Job %s (%s) stands still; sending it again", job.id, job.kind.value)
            tasks.send(task, job.id)
            jobs.count_recovery(job.kind)


def _recover_import(job: JobRecord, jobs: Jobs, is_waiting: IsWaiting, tasks: TaskSender) -> None:
    jobs.renew(job.id)
    if not is_waiting(job.id, BULK):
        log.warning("Import %s stands still; planning what is left of it", job.id)
        tasks.send("plan_import", job.id)
        jobs.count_recovery(job.kind)


def _recover_batch(job: JobRecord, jobs: Jobs, is_waiting: IsWaiting, tasks: TaskSender, settings: Settings) -> None:
    """A batch search takes turns: between two of them it runs, and only its message waits."""
    if is_waiting(job.id, BULK):
        jobs.renew(job.id)
    elif job.attempts >= settings.job_max_attempts:
        lost = f"The worker died {job.attempts} times over the same queries. Send the others without them."
        if jobs.fail(job.id, WorkerLost(lost)):
            log.error("Batch search %s is given up", job.id)
    else:
        jobs.renew(job.id)
        log.warning("Batch search %s stands still; sending it again", job.id)
        tasks.send("search_batch", job.id)
        jobs.count_recovery(job.kind)
