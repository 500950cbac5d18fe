"""The workers' composition: the Celery application, its tasks, and what happens as a worker starts and ends.

Run as `celery --app worker.app worker --queues ...`; the queues decide what a process loads: what needs numpy, Pillow
or FAISS is imported by the tasks that use it.
"""

import logging
import os
import socket
from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.signals import setup_logging, worker_init, worker_ready, worker_shutting_down
from redis.exceptions import RedisError
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from shared.errors import DatabaseUnavailable, DeadlineExceeded, Internal, JobNotFound, LookalikeError
from shared.job_record import JobRecord
from shared.queues import SEARCH, TaskSender, create_celery
from shared.schemas import JobKind
from shared.settings import Settings, load_settings
from shared.worker_presence import PRESENCE_SECONDS, announce_worker, withdraw_worker
from worker.callbacks import deliver_callback, dispatch_callbacks
from worker.clean_up import clean_up
from worker.heartbeat import repeat
from worker.recovery import is_past_deadline, recover_jobs
from worker.services import Services

if TYPE_CHECKING:
    from worker.imports.run import ImportRunner

log = logging.getLogger(__name__)

# How long a worker may hold a job before recovery takes it for hung; far above what either kind needs.
IMPORT_STEP_MAX_SECONDS = 3000
EMBED_MISSING_MAX_SECONDS = 20

DATABASE_FAILURES = (OperationalError, InterfaceError, PoolTimeout)

SCHEDULE = {"dispatch_callbacks": 1.0, "recover_jobs": 3.0, "embed_missing": 15.0, "clean_up": 3600.0}


def create_worker(settings: Settings) -> Celery:
    """Create the application with all tasks; connections and models come with the first task that needs them."""
    app = create_celery(settings, "worker")
    # A message that was not taken before the next one is sent is worthless: no pile after a long import.
    app.conf.beat_schedule = {
        task: {"task": task, "schedule": seconds, "options": {"expires": seconds}} for task, seconds in SCHEDULE.items()
    }
    services = Services(settings)
    tasks = TaskSender(app)
    _add_job_tasks(app, services, tasks)
    _add_upkeep_tasks(app, services, tasks)
    _connect_signals(services, settings)
    return app


def _add_job_tasks(app: Celery, services: Services, tasks: TaskSender) -> None:
    settings = services.settings

    def runner() -> "ImportRunner":
        from worker.imports.run import ImportRunner

        parts = (settings, services.jobs, services.catalogue, services.store, services.fetcher)
        return ImportRunner(*parts, services.intake, tasks)

    def run(
        job: JobRecord,
        max_seconds: float,
        work: Callable[[], Any],
        fail: Callable[[LookalikeError], Any],
        is_counted: bool = True,
    ) -> None:
        """Do a job's work under its lease; a failure of the job ends it, one of Redis leaves it to recovery."""
        with services.leases.holding(job.id, max_seconds):
            try:
                work()
            except LookalikeError as error:
                fail(error)
            except RedisError:
                raise
            except DATABASE_FAILURES:
                log.exception("Job %s: the database failed", job.id)
                if job.kind is JobKind.IMPORT:
                    if is_counted:
                        services.jobs.return_attempt(job.id)
                    raise  # its rows are in the store: recovery goes on with it when the database is back
                fail(DatabaseUnavailable("The catalogue could not be read. Search again in a moment."))
            except Exception:  # the one place where an unforeseen error becomes a failed job
                log.exception("Job %s failed", job.id)
                fail(Internal(f"An unforeseen error; the worker's log has it under job {job.id}."))

    def task_in_turn(name: str) -> Callable[[Callable[[str], None]], Any]:
        """Register a task that goes behind the others while too many wait for slow hosts."""

        def register(work: Callable[[str], None]) -> Any:
            def run_in_turn(job_id: str) -> None:
                services.fetch_turns.run(name, job_id, work, services.jobs, tasks)

            return app.task(name=name)(run_in_turn)

        return register

    @task_in_turn("search")
    def search_task(job_id: str) -> None:
        job = services.jobs.start(job_id)
        if job is None:
            return
        image = services.jobs.image(job_id)

        def work() -> None:
            if is_past_deadline(job, settings) or ("sha256" in job.parameters["source"] and image is None):
                limit = settings.search_deadline_seconds
                raise DeadlineExceeded(f"Not started within {limit} seconds. Search again, or add search workers.")
            services.jobs.succeed(job_id, services.load_engine().search(job, image))

        run(job, settings.search_deadline_seconds, work, lambda error: services.jobs.fail(job_id, error))

    @task_in_turn("write_item")
    def write_item_task(job_id: str) -> None:
        from worker.items import clear_uploads, write_item

        job = services.jobs.start(job_id)
        if job is None:
            _clear_ended(job_id, services, lambda ended: clear_uploads(ended, services.store))
            return

        def fetch(url: str) -> bytes:
            return services.fetcher.get(url, settings.upload_max_bytes)

        def work() -> None:
            parts = (services.catalogue, services.store, services.intake)
            services.jobs.succeed(job_id, write_item(job, *parts, fetch))
            clear_uploads(job, services.store)

        def fail(error: LookalikeError) -> None:
            services.jobs.fail(job_id, error)
            clear_uploads(job, services.store)

        run(job, IMPORT_STEP_MAX_SECONDS, work, fail)

    def import_step(job_id: str, step: "Callable[[ImportRunner, JobRecord], None]", is_plan: bool = False) -> None:
        job = services.jobs.start(job_id, counts_as_attempt=is_plan)  # of a chunk, its own tries count
        if job is None:
            _clear_ended(job_id, services, lambda ended: runner().clear(ended))
            return
        imports = runner()
        run(job, IMPORT_STEP_MAX_SECONDS, lambda: step(imports, job), lambda error: imports.fail(job, error), is_plan)

    @app.task(name="plan_import")
    def plan_import_task(job_id: str) -> None:
        import_step(job_id, lambda imports, job: imports.plan(job), is_plan=True)

    @app.task(name="import_chunk")
    def import_chunk_task(job_id: str, number: int) -> None:
        import_step(job_id, lambda imports, job: imports.run_chunk(job, number))


def _clear_ended(job_id: str, services: Services, clear: Callable[[JobRecord], None]) -> None:
    """Remove the files of a job that ended before its message came, since it was cancelled."""
    try:
        clear(services.jobs.get(job_id))
    except JobNotFound:
        log.info("Job %s has no record any more", job_id)


def _add_upkeep_tasks(app: Celery, services: Services, tasks: TaskSender) -> None:
    settings = services.settings

    @app.task(name="embed_missing")
    def embed_missing_task() -> None:
        from worker.embed_missing import embed_missing

        done = embed_missing(services.catalogue, services.store, services.intake, EMBED_MISSING_MAX_SECONDS)
        if done:
            log.info("Embedded %d images that had no embedding of %s", done, services.encoder_id)

    @app.task(name="deliver_callback")
    def deliver_callback_task(job_id: str) -> None:
        deliver_callback(job_id, services.jobs, services.callback_fetcher, settings)

    @app.task(name="dispatch_callbacks")
    def dispatch_callbacks_task() -> None:
        dispatch_callbacks(services.jobs, tasks, settings)

    @app.task(name="recover_jobs")
    def recover_jobs_task() -> None:
        recover_jobs(services.jobs, services.redis, tasks, settings)

    @app.task(name="clean_up")
    def clean_up_task() -> None:
        clean_up(services.catalogue, services.jobs, services.store)


def _connect_signals(services: Services, settings: Settings) -> None:
    stopped = Event()
    name = f"{socket.gethostname()}:{os.getpid()}"

    # Celery keeps weak references to handlers unless told otherwise, and these are local functions.
    @setup_logging.connect(weak=False)
    def configure_logging(**_: Any) -> None:
        logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        # Several lines for each message say nothing that the job record and the metrics don't.
        for noisy in ("celery.app.trace", "celery.worker.strategy", "celery.beat"):
            logging.getLogger(noisy).setLevel(logging.WARNING)

    @worker_init.connect(weak=False)
    def load_engine(sender: Any, **_: Any) -> None:
        """A search worker takes no message before it can answer; one that can't load ends, and says why."""
        if SEARCH not in sender.app.amqp.queues.consume_from:
            return
        from worker.encoder import EncoderUnavailable

        try:
            services.load_engine()
        except (EncoderUnavailable, SQLAlchemyError) as error:
            # Celery would log any other exception of a signal's handler, and go on without an engine.
            raise SystemExit(f"This search worker can't answer: {error}") from error

    @worker_ready.connect(weak=False)
    def announce(sender: Any, **_: Any) -> None:
        queues = list(sender.app.amqp.queues.consume_from)
        if services.live_index is not None:
            services.live_index.follow(settings.refresh_interval_seconds, stopped)

        def present() -> None:
            for queue in queues:
                announce_worker(services.redis, queue, name)

        repeat(present, PRESENCE_SECONDS / 3, stopped, "announce-worker")

    @worker_shutting_down.connect(weak=False)
    def withdraw(**_: Any) -> None:
        stopped.set()
        try:
            for queue in list(app.amqp.queues.consume_from):
                withdraw_worker(services.redis, queue, name)
        except RedisError:
            log.info("Redis is away; this worker's presence expires by itself")


app = create_worker(load_settings())
