"""Messages as Celery and kombu put them on a Redis list, for those who send one together with other writes.

Celery's own sender opens a connection of its own, so that a job's record could be written and its message lost, or the
other way about. What is built here goes into the transaction that writes the record. tests/integration/
test_task_message.py compares it with what Celery sends, field by field, and gives it to a real worker.
"""

import base64
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celery import Celery

from shared.queues import SENT_AT, TASK_QUEUES, queue_key


@dataclass(frozen=True)
class TaskMessage:
    """A message, and the Redis list that it is pushed to on the left."""

    key: str
    text: str


class TaskMessages:
    """Builds messages; threads share it."""

    def __init__(self, app: Celery) -> None:
        self._create: Callable[..., Any] = app.amqp.create_task_message
        self._reply_to: Callable[[], str] = lambda: app.thread_oid

    def of(self, task: str, *args: Any) -> TaskMessage:
        """Build the message of one task.

        Args:
            task: a key of TASK_QUEUES.
            args: ids; JSON values only.
        """
        queue = TASK_QUEUES[task]
        # Celery's protocol of task messages (as_task_v2) ...
        message = self._create(str(uuid.uuid4()), task, args, {}, reply_to=self._reply_to(), ignore_result=None)
        body = json.dumps(message.body)
        # ... in the envelope of kombu's virtual transports, for the exchange without a name.
        envelope = {
            "body": base64.b64encode(body.encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {**message.headers, SENT_AT: time.time()},
            "properties": {
                **message.properties,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
        return TaskMessage(queue_key(queue), json.dumps(envelope))


def sent_at(text: bytes) -> float | None:
    """Return the unix time at which a message on a queue was sent; None if it doesn't say."""
    try:
        return float(json.loads(text)["headers"][SENT_AT])
    except (KeyError, TypeError, ValueError):
        return None


def read_message(text: bytes) -> tuple[str, list[Any]]:
    """Return the task and its arguments of a message on a queue.

    Raises:
        ValueError: if it is none.
    """
    try:
        envelope = json.loads(text)
        arguments, _named, _embedded = json.loads(base64.b64decode(envelope["body"]))
        return str(envelope["headers"]["task"]), list(arguments)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"this is no message of a task: {error!r}") from None
