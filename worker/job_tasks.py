"""The tasks that do a client's job: each takes it in hand under a lease, and ends it with a result or a stable error.

What needs numpy, Pillow or FAISS is imported by the tasks that use it.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from celery import Celery
from redis.exceptions import RedisError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from shared.batch_files import clear_batch, clear_ended_batch
from shared.errors import DatabaseUnavailable, DeadlineExceeded, Internal, JobNotFound, LookalikeError, WorkerLost
from shared.job_record import JobRecord
from shared.logs import log_ids
from shared.queues import TaskSender
from shared.schemas import JobKind
from worker.recovery import is_past_deadline
from worker.services import Services
from worker.turns import Turns

if TYPE_CHECKING:
    from worker.imports.run import ImportRunner

log = logging.getLogger(__name__)

SEARCH_HANGS_SECONDS = 60  # at least: a slow search alone is no reason to end its worker
RELEASE_MAX_SECONDS = 86_400  # embedding a large catalogue for another encoder takes hours

DATABASE_FAILURES = (OperationalError, InterfaceError, PoolTimeout)


class JobCancelled(Exception):
    """A client does not want the result of a job any more; the job has ended already."""


def add_job_tasks(app: Celery, services: Services, tasks: TaskSender) -> None:
    """Register what searches, imports, batch searches, releases and single items begin with.

    None is shared with other applications of the process, which would be Celery's default: they hold these services.
    """
    settings = services.settings
    search_hangs_seconds = max(settings.search_deadline_seconds, SEARCH_HANGS_SECONDS)

    def runner() -> "ImportRunner":
        from worker.imports.run import ImportRunner

        parts = (settings, services.jobs, services.catalogue, services.store, services.fetcher)
        made = (lambda: services.intake, services.current_engine, tasks)
        return ImportRunner(*parts, *made, services.accepted_imports, services.leases.go_on)

    def run(
        job: JobRecord,
        max_seconds: float,
        work: Callable[[], Any],
        fail: Callable[[LookalikeError], Any],
        is_counted: bool = True,
    ) -> None:
        """Do a job's work under its lease; a failure of the job ends it, one of Redis leaves it to recovery."""
        with log_ids(job.log_ids), services.job_traces.job(job), services.leases.holding(job.id, max_seconds):
            try:
                began = monotonic()
                work()
                milliseconds = round((monotonic() - began) * 1000, 1)
                log.info("Worked on a %s job for %s ms", job.kind, milliseconds, extra={"duration_ms": milliseconds})
            except LookalikeError as error:
                log.info("A %s job failed: %s", job.kind, error.code, extra={"code": error.code})
                services.job_traces.note_failure(error.code)
                fail(error)
            except JobCancelled:
                log.debug("Job %s was cancelled while it waited", job.id)
            except RedisError:
                raise
            except DATABASE_FAILURES:
                log.exception("Job %s: the database failed", job.id)
                if job.kind is not JobKind.SEARCH:
                    if is_counted:
                        services.jobs.return_attempt(job.id)
                    raise  # what it works on is kept: recovery goes on with it when the database is back
                fail(DatabaseUnavailable("The catalogue could not be read. Search again in a moment."))
            except Exception:  # the one place where an unforeseen error becomes a failed job
                log.exception("Job %s failed", job.id)
                services.job_traces.note_failure(Internal.code)
                fail(Internal(f"An unforeseen error; the worker's log has it under job {job.id}."))

    def check_tries(job: JobRecord) -> None:
        """Give up a job whose worker has died as often as it may.

        Recovery does so when the lease is over. But Celery sends a message again at once when a child process has died,
        and a job may have a second message.
        """
        if job.attempts > settings.job_max_attempts:
            raise WorkerLost(f"The job was tried {settings.job_max_attempts} times and its worker died each time.")

    def search_queue_task(name: str) -> Callable[[Callable[[str], None]], Any]:
        """Register a task, and two that go behind the others when it is not their turn.

        The one by URL, while too many wait for slow hosts; the one alone, while another job whose worker died is tried
        again: if one of them kills its worker each time, the others are not tried, and so not blamed.
        """

        def register(work: Callable[[str], None]) -> Any:
            def in_turn(task: str, turns: Turns) -> Callable[[str], None]:
                return lambda job_id: turns.run(task, job_id, work, services.jobs, tasks)

            works = {
                name: work,
                f"{name}_by_url": in_turn(f"{name}_by_url", services.fetch_turns),
                f"{name}_alone": in_turn(f"{name}_alone", services.turn_alone),
            }

            def handed_over(task: str) -> Any:
                def run_task(job_id: str) -> None:
                    services.backlog.run(works[task], job_id)

                return app.task(name=task, shared=False)(run_task)

            services.backlog.serve(works)
            return [handed_over(task) for task in works]

        return register

    @search_queue_task("search")
    def search_task(job_id: str) -> None:
        started = services.jobs.start(job_id)
        if started is None:
            return
        job, image = started.record, started.image

        def check_deadline() -> None:
            if is_past_deadline(job, settings) or ("sha256" in job.parameters["source"] and image is None):
                limit = settings.search_deadline_seconds
                raise DeadlineExceeded(f"Not done within {limit} seconds. Search again, or add search workers.")

        def still_wanted() -> None:
            check_deadline()
            if services.jobs.is_cancelled(job_id):
                raise JobCancelled

        def work() -> None:
            check_deadline()
            check_tries(job)
            answer = services.engine.search(job, image, still_wanted)
            services.jobs.succeed(job_id, answer.result, answer.entries, answer.answered_from)
            services.step_times.add(answer.timings_ms)
            services.job_traces.add_steps(job, answer.timings_ms)

        run(job, search_hangs_seconds, work, partial(services.jobs.fail, job_id))

    @search_queue_task("write_item")
    def write_item_task(job_id: str) -> None:
        from worker.items import clear_uploads, write_item

        def clear(ended: JobRecord) -> None:
            if services.accepted_imports.end(job_id):  # else Redis has lost it: it comes back, and needs them
                clear_uploads(ended, services.store)

        started = services.jobs.start(job_id)
        if started is None:
            _clear_ended(job_id, services, clear)
            return
        job = started.record

        fetch = partial(services.fetcher.get, max_bytes=settings.upload_max_bytes)

        def work() -> None:
            check_tries(job)
            services.jobs.succeed(job_id, write_item(job, services.catalogue, services.store, services.intake, fetch))
            clear(job)

        def fail(error: LookalikeError) -> None:
            services.jobs.fail(job_id, error)
            clear(job)

        run(job, settings.job_step_max_seconds, work, fail)

    @app.task(name="build_release", shared=False)
    def build_release_task(job_id: str) -> None:
        from worker.releases.job import build_release

        started = services.jobs.start(job_id)
        if started is None:
            return
        job = started.record

        def still_wanted() -> None:
            services.leases.go_on(job_id)
            if services.jobs.is_cancelled(job_id):
                raise JobCancelled

        def work() -> None:
            check_tries(job)
            build_release(job, settings, services.jobs, services.catalogue, services.store, still_wanted)

        run(job, RELEASE_MAX_SECONDS, work, partial(services.jobs.fail, job_id))

    @app.task(name="search_batch", shared=False)
    def search_batch_task(job_id: str) -> None:
        from worker.batches.run import BatchRunner

        started = services.jobs.start(job_id)
        if started is None:
            _clear_ended(job_id, services, lambda ended: clear_ended_batch(services.store, ended))
            return
        job, tries = started.record, settings.job_max_attempts
        parts = (services.jobs, services.catalogue, services.store, services.current_engine, tasks, tries)
        runner = BatchRunner(*parts, services.leases.go_on)

        def still_wanted() -> None:
            if services.jobs.is_cancelled(job_id):
                clear_batch(services.store, job)
                raise JobCancelled

        def fail(error: LookalikeError) -> None:
            if services.jobs.fail(job_id, error):  # else another worker may have succeeded, and what it wrote is needed
                clear_batch(services.store, job)

        def work() -> None:
            check_tries(job)
            runner.run(job, still_wanted)

        run(job, settings.job_step_max_seconds, work, fail)

    def import_step(job_id: str, step: "Callable[[ImportRunner, JobRecord], None]", is_plan: bool = False) -> None:
        started = services.jobs.start(job_id, counts_as_attempt=is_plan)  # of a chunk, its own tries count
        if started is None:
            _clear_ended(job_id, services, lambda ended: runner().clear(ended))
            return
        job, imports = started.record, runner()
        run(job, settings.job_step_max_seconds, partial(step, imports, job), partial(imports.fail, job), is_plan)

    @app.task(name="plan_import", shared=False)
    def plan_import_task(job_id: str) -> None:
        import_step(job_id, lambda imports, job: imports.plan(job), is_plan=True)

    @app.task(name="import_chunk", shared=False)
    def import_chunk_task(job_id: str, number: int) -> None:
        import_step(job_id, lambda imports, job: imports.run_chunk(job, number))


def _clear_ended(job_id: str, services: Services, clear: Callable[[JobRecord], None]) -> None:
    """Remove the files of a job that ended before its message came, since it was cancelled."""
    with suppress(JobNotFound):
        clear(services.jobs.get(job_id))
