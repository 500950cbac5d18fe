"""The queues and the tasks on them; how web and workers put a message there.

A message carries a task name and ids only: job records, images and catalogue files travel beside it, so
that every message is small, JSON, and safe to run twice.
"""

from typing import Any

from celery import Celery

from shared.settings import Settings

KEY_PREFIX = "lookalike:queue:"

SEARCH = "search"
BULK = "bulk"
CALLBACKS = "callbacks"
MAINTENANCE = "maintenance"
QUEUES = (SEARCH, BULK, CALLBACKS, MAINTENANCE)

TASK_QUEUES = {
    "search": SEARCH,
    "write_item": SEARCH,
    "plan_import": BULK,
    "import_chunk": BULK,
    "embed_missing": BULK,
    "deliver_callback": CALLBACKS,
    "dispatch_callbacks": MAINTENANCE,
    "recover_jobs": MAINTENANCE,
    "clean_up": MAINTENANCE,
}


def queue_key(queue: str) -> str:
    """Return the Redis list that holds the waiting messages of `queue`."""
    return KEY_PREFIX + queue


def create_celery(settings: Settings, name: str) -> Celery:
    """Create the Celery application that web sends with and workers run.

    Delivery is at least once: a message is acknowledged after its task (`acks_late`), put back when the
    process that ran it dies, and returned by Redis after the visibility timeout. Job records make the second
    run harmless. Results never pass through Celery: the job record is the truth.
    """
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
            "visibility_timeout": 3600,
            "socket_timeout": 10,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        timezone="UTC",
    )
    return app


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
            kombu.exceptions.OperationalError: if Redis is out of reach; nothing was sent.
        """
        self._app.send_task(task, args=args, queue=TASK_QUEUES[task])
