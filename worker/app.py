"""The workers' composition: the Celery application, its upkeep tasks, and what happens as a worker starts and ends.

Run as `celery --app worker.app worker --queues ...`; the queues decide what a process loads: what needs numpy, Pillow
or FAISS is imported by the tasks that use it.
"""

import logging
import os
import socket
from threading import Event
from typing import Any

from celery import Celery
from celery.signals import (
    celeryd_init,
    setup_logging,
    worker_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutting_down,
)
from celery.worker.state import active_requests
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from shared.errors import IndexUnavailable
from shared.logs import configure_logging
from shared.queues import SEARCH, TaskSender, create_celery
from shared.settings import Settings, load_settings
from shared.step_times import write_step_times
from shared.tracing import check_tracing
from shared.worker_presence import PRESENCE_SECONDS, WorkerState, announce_worker, withdraw_worker
from worker.broker import hold_messages_in_memory
from worker.callbacks import deliver_callback, dispatch_callbacks
from worker.clean_up import clean_up
from worker.heartbeat import repeat
from worker.job_tasks import add_job_tasks
from worker.memory import resident_bytes
from worker.recovery import recover_jobs
from worker.services import Services

log = logging.getLogger(__name__)

EMBED_MISSING_MAX_SECONDS = 20

SCHEDULE = {"dispatch_callbacks": 1.0, "recover_jobs": 3.0, "embed_missing": 15.0, "clean_up": 3600.0}


def create_worker(settings: Settings) -> Celery:
    """Create the application with all tasks; connections and models come with the first task that needs them."""
    check_tracing(settings)
    hold_messages_in_memory()
    app = create_celery(settings, "worker")
    app.conf.worker_consumer = "worker.consumer:Consumer"
    # A message that was not taken before the next one is sent is worthless: no pile after a long import.
    app.conf.beat_schedule = {
        task: {"task": task, "schedule": seconds, "options": {"expires": seconds}} for task, seconds in SCHEDULE.items()
    }
    services = Services(settings)
    tasks = TaskSender(app)
    add_job_tasks(app, services, tasks)
    _add_upkeep_tasks(app, services, tasks)
    _connect_signals(services, settings)
    return app


def _add_upkeep_tasks(app: Celery, services: Services, tasks: TaskSender) -> None:
    settings = services.settings

    @app.task(name="embed_missing", shared=False)
    def embed_missing_task() -> None:
        from worker.embed_missing import embed_missing

        intake = services.intake
        done = embed_missing(services.catalogue, services.store, intake, EMBED_MISSING_MAX_SECONDS)
        if done:
            log.info("Embedded %d images that had no embedding of %s", done, intake.encoder_id)

    @app.task(name="deliver_callback", shared=False)
    def deliver_callback_task(job_id: str) -> None:
        deliver_callback(job_id, services.jobs, services.callback_fetcher, services.endpoints, settings)

    @app.task(name="dispatch_callbacks", shared=False)
    def dispatch_callbacks_task() -> None:
        dispatch_callbacks(services.jobs, tasks, settings)

    @app.task(name="recover_jobs", shared=False)
    def recover_jobs_task() -> None:
        try:
            services.accepted_imports.look_after()
        except SQLAlchemyError as error:  # searches are recovered all the same
            log.warning("Imports that Redis may have lost can't be looked after: %s", error)
        recover_jobs(services.jobs, services.redis, tasks, settings)

    @app.task(name="clean_up", shared=False)
    def clean_up_task() -> None:
        services.accepted_imports.look_after()
        clean_up(services.catalogue, services.jobs, services.store)


def _connect_signals(services: Services, settings: Settings) -> None:
    stopped = Event()
    name = f"{socket.gethostname()}:{os.getpid()}"

    # Celery keeps weak references to handlers unless told otherwise, and these are local functions.
    @celeryd_init.connect(weak=False)
    def log_from_the_start(instance: Any, **_: Any) -> None:
        configure_logging(settings)
        logging.captureWarnings(True)  # Celery warns before it sets up logging
        instance.quiet = instance.quiet or settings.log_format == "json"  # it is printed, not logged

    @setup_logging.connect(weak=False)
    def set_up_logging(**_: Any) -> None:
        configure_logging(settings)
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
        except Exception as error:  # Celery would log it, and go on without an engine
            if not isinstance(error, (EncoderUnavailable, IndexUnavailable, SQLAlchemyError, OSError)):
                log.exception("The engine could not be loaded")
            raise SystemExit(f"This search worker can't answer: {error}") from error

    @worker_ready.connect(weak=False)
    def announce(sender: Any, **_: Any) -> None:
        queues = list(sender.app.amqp.queues.consume_from)
        if SEARCH in queues:
            services.follow_catalogue(stopped)

        def present() -> None:
            state = WorkerState(name=name, queues=queues, memory_bytes=resident_bytes(), tasks=len(active_requests))
            counts = services.step_times.take()
            try:
                with services.redis.pipeline(transaction=False) as pipe:
                    announce_worker(pipe, state)
                    write_step_times(pipe, counts)
                    pipe.execute()
            except RedisError:
                services.step_times.put_back(counts)
                raise

        repeat(present, PRESENCE_SECONDS / 3, stopped, "announce-worker")
        from worker.watchdog import Watchdog  # imports Celery's worker, which beat and health checks need not

        Watchdog(services.redis, queues).watch(stopped)

    @worker_process_shutdown.connect(weak=False)
    def send_last_traces(**_: Any) -> None:
        services.job_traces.close()  # a child process ends without what Python does at exit

    @worker_shutting_down.connect(weak=False)
    def withdraw(**_: Any) -> None:
        stopped.set()
        services.backlog.end()
        try:
            withdraw_worker(services.redis, list(app.amqp.queues.consume_from), name)
        except RedisError:
            log.info("Redis is away; this worker's presence expires by itself")


app = create_worker(load_settings())
