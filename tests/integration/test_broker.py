"""Messages that a worker has taken and not yet done."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from celery import Celery
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.messaging import Consumer

from shared.queues import SEARCH, TaskSender, create_celery, queue_key
from shared.settings import Settings
from tests.conftest import make_settings
from tests.servers import running_redis
from worker.broker import hold_messages_in_memory

SECONDS = 20


class Worker:
    """Takes messages as Celery's consumer does, and does nothing with them."""

    def __init__(self, settings: Settings) -> None:
        hold_messages_in_memory()
        self.app: Celery = create_celery(settings, "test")
        self.connection: Connection = self.app.connection_for_read()
        self.messages: list[Any] = []
        queue = Queue(SEARCH, routing_key=SEARCH)
        self._consumer = Consumer(self.connection, [queue], on_message=self.messages.append, prefetch_count=2)
        self._consumer.consume()

    def take(self) -> None:
        self.connection.drain_events(timeout=SECONDS)


@pytest.fixture
def worker(settings: Settings, redis_client: redis.Redis) -> Iterator[Worker]:
    worker = Worker(settings)
    yield worker
    worker.connection.release()


def names(client: redis.Redis) -> set[str]:
    """Return the keys that hold messages, or notes of them."""
    keys = cast("list[bytes]", client.keys("lookalike:queue:*"))
    return {key.decode() for key in keys if b"_kombu" not in key}


def test_a_message_is_in_the_queue_or_in_the_worker_and_nowhere_else(worker: Worker, redis_client: redis.Redis) -> None:
    TaskSender(worker.app).send("search", "job")
    assert names(redis_client) == {queue_key(SEARCH)}
    worker.take()
    assert names(redis_client) == set()
    worker.messages[0].ack()
    worker.connection.close()
    assert names(redis_client) == set()


def test_a_worker_that_ends_gives_back_what_is_not_done(worker: Worker, redis_client: redis.Redis) -> None:
    for job_id in ("done", "open"):
        TaskSender(worker.app).send("search", job_id)
        worker.take()
    worker.messages[0].ack()
    worker.connection.close()
    waiting = redis_client.lrange(queue_key(SEARCH), 0, -1)
    assert len(waiting) == 1
    assert worker.messages[1].headers["id"].encode() in waiting[0]


def test_a_child_process_that_died_has_its_message_put_back(worker: Worker, redis_client: redis.Redis) -> None:
    TaskSender(worker.app).send("search", "job")
    worker.take()
    worker.messages[0].reject(requeue=True)
    assert redis_client.llen(queue_key(SEARCH)) == 1


def test_messages_that_redis_does_not_take_back_are_left_to_recovery(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running_redis(tmp_path) as server:
        worker = Worker(make_settings(server, tmp_path))
        TaskSender(worker.app).send("search", "job")
        worker.take()
        server.kill()
        with caplog.at_level(logging.WARNING):
            worker.messages[0].channel.qos.restore_unacked_once()
    assert "Redis did not take back 1 messages" in caplog.text
    assert "EMERGENCY" not in caplog.text, "kombu would write it to a file that nobody looks for"


def test_a_worker_takes_no_more_than_it_has_threads(worker: Worker, redis_client: redis.Redis) -> None:
    for number in range(5):
        TaskSender(worker.app).send("search", str(number))
    worker.take()
    worker.take()
    with pytest.raises(TimeoutError):
        worker.connection.drain_events(timeout=0.5)
    assert len(worker.messages) == 2
    assert redis_client.llen(queue_key(SEARCH)) == 3
    worker.messages[0].ack()
    worker.take()
    assert len(worker.messages) == 3
