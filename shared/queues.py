"""The queues and the tasks on them; how workers put a message there (web: shared/task_message.py).

A message carries a task name and ids only: job records, images and catalogue files travel beside it, so
that every message is small, JSON, and safe to run twice.
"""

import time
from collections.abc import Mapping
from typing import Any

from celery import Celery
from celery.signals import before_task_publish
from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.schemas import JobKind
from shared.settings import Settings

KEY_PREFIX = "lookalike:queue:"

SEARCH = "search"
BULK = "bulk"
CALLBACKS = "callbacks"
MAINTENANCE = "maintenance"
QUEUES = (SEARCH, BULK, CALLBACKS, MAINTENANCE)

SENT_AT = "sent_at"
"""The header of a message that holds the unix time of its sending: how old the oldest one of a queue is."""

# A task by URL fetches first, and so may hold its thread for long; one alone is of a job whose worker died, perhaps of
# it. The name says so before any record is read.
TASK_QUEUES = {
    "search": SEARCH,
    "search_by_url": SEARCH,
    "write_item": SEARCH,
    "write_item_by_url": SEARCH,
    "search_alone": SEARCH,
    "write_item_alone": SEARCH,
    "plan_import": BULK,
    "import_chunk": BULK,
    "build_release": BULK,
    "search_batch": BULK,
    "embed_missing": BULK,
    "deliver_callback": CALLBACKS,
    "dispatch_callbacks": MAINTENANCE,
    "recover_jobs": MAINTENANCE,
    "clean_up": MAINTENANCE,
}


def task_of(kind: JobKind, parameters: Mapping[str, Any]) -> str:
    """Return the task that begins a job with these parameters."""
    if kind is JobKind.SEARCH:
        return "search_by_url" if "image_url" in parameters.get("source", ()) else "search"
    if kind is JobKind.BATCH_SEARCH:
        return "search_batch"
    if kind is JobKind.REINDEX:
        return "build_release"
    if "mode" in parameters:
        return "plan_import"
    return "write_item_by_url" if parameters.get("image_urls") else "write_item"


def task_again_of(kind: JobKind, parameters: Mapping[str, Any]) -> str:
    """Return the task that begins a job again whose worker died: alone, where the worker does several at once."""
    task = task_of(kind, parameters)
    return f"{task.removesuffix('_by_url')}_alone" if TASK_QUEUES[task] == SEARCH else task


def queue_key(queue: str) -> str:
    """Return the Redis list that holds the waiting messages of `queue`."""
    return KEY_PREFIX + queue


def create_celery(settings: Settings, name: str) -> Celery:
    """Create the Celery application that web sends with and workers run.

    A message is given back when the worker that has it ends, or the child process that ran it dies (`acks_late`). A
    worker that is killed loses its messages (worker/broker.py); the leases of job records bring their jobs back. Job
    records make a second run harmless. Results never pass through Celery: the job record is the truth.
    """
    before_task_publish.connect(_note_sending)
    app = Celery(name, broker=settings.redis_url)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_create_missing_queues=True,
        task_routes={task: {"queue": queue} for task, queue in TASK_QUEUES.items()},
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_publish_retry=False,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "global_keyprefix": KEY_PREFIX,
            "socket_timeout": 10,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        timezone="UTC",
    )
    return app


def _note_sending(headers: dict[str, Any], **_: Any) -> None:
    headers[SENT_AT] = time.time()


class TaskSender:
    """Puts messages on the queues."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def send(self, task: str, *args: Any) -> None:
        """Send one message.

        Args:
            task: a key of TASK_QUEUES.
            args: ids; JSON values only.

        Raises:
            redis.exceptions.ConnectionError: if Redis is out of reach.
        """
        try:
            self._app.send_task(task, args=args, queue=TASK_QUEUES[task])
        except OperationalError as error:  # kombu's own, which nobody takes for a failure of Redis
            raise RedisConnectionError(f"A message could not be sent: {error}") from error
