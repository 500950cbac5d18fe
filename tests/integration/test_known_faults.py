"""Faults of Celery and kombu that apply to the pinned versions, and what keeps them from us."""

import time
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest
import redis
from celery.concurrency.thread import TaskPool
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.messaging import Consumer
from kombu.transport import TRANSPORT_ALIASES, _transport_cache
from kombu.transport import redis as kombus_own

from shared.queues import SEARCH, TaskSender, create_celery, queue_key
from shared.settings import Settings
from worker.broker import hold_messages_in_memory

VISIBLE_AGAIN_SECONDS = 1
SCHEMES = ("redis", "rediss")


@pytest.fixture(params=["ours", "kombu's own"])
def transport(request: pytest.FixtureRequest) -> Iterator[str]:
    before = {scheme: TRANSPORT_ALIASES[scheme] for scheme in SCHEMES}
    if request.param == "ours":
        hold_messages_in_memory()
    else:
        TRANSPORT_ALIASES.update(dict.fromkeys(SCHEMES, f"{kombus_own.__name__}:Transport"))
    _transport_cache.clear()  # which one earlier tests of this process used is remembered there
    yield request.param
    TRANSPORT_ALIASES.update(before)
    _transport_cache.clear()


def test_celery_5935_a_task_that_takes_long_is_not_started_again_beside_itself(
    settings: Settings, redis_client: redis.Redis, transport: str
) -> None:
    """With kombu's own transport it is, as soon as the visibility timeout is over, which shows that this test works."""
    app = create_celery(settings, "test")
    app.conf.broker_transport_options = {
        **app.conf.broker_transport_options,
        "visibility_timeout": VISIBLE_AGAIN_SECONDS,
        "unacked_restore_throttle": 1,  # kombu #2558: without it, only every tenth look is one
    }
    connection: Connection = app.connection_for_read()
    taken: list[Any] = []
    consumer = Consumer(connection, [Queue(SEARCH, routing_key=SEARCH)], on_message=taken.append, prefetch_count=9)
    consumer.consume()
    TaskSender(app).send("search", "job")

    def drain(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                connection.drain_events(timeout=0.1)
            except TimeoutError:
                continue

    drain(4 * VISIBLE_AGAIN_SECONDS)
    messages = [message.headers["id"] for message in taken]
    keys = redis_client.keys("lookalike:queue:unacked*")
    connection.release()
    app.close()

    if transport == "ours":
        assert len(messages) == 1
        assert keys == [], "kombu #2558 is about how these are looked through"
        assert redis_client.llen(queue_key(SEARCH)) == 1, "what was not done goes back when the worker ends"
    else:
        assert len(messages) > 1
        assert len(set(messages)) == 1


def test_the_threads_pool_enforces_no_time_limit_so_that_leases_and_deadlines_have_to() -> None:
    """What they do is in test_job_upkeep.py, test_recovery.py and test_search_task.py."""
    pool, ended = TaskPool(limit=1), Event()
    began = time.monotonic()
    pool.apply_async(Event().wait, (0.5,), callback=lambda _: ended.set(), soft_timeout=0.05, timeout=0.1)
    assert ended.wait(20)
    pool.on_stop()
    assert time.monotonic() - began >= 0.5, "Celery has learnt to; then its limits may be set"
