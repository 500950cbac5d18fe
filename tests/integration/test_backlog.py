"""Threads that take waiting messages themselves, with a real Redis server and messages as web writes them."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from typing import cast

import pytest
from celery import Celery
from redis import Redis

from shared.queues import SEARCH, queue_key
from shared.redis_client import connect_redis
from shared.settings import Settings
from shared.task_message import TaskMessages, read_message
from worker.backlog import Backlog

KEY = queue_key(SEARCH)
SECONDS = 20


class Works:
    """What the tasks do: note the job; a job of the name "fails" does."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self._lock = Lock()

    def search(self, job_id: str) -> None:
        with self._lock:
            self.done.append(job_id)
        if job_id.startswith("fails"):
            raise RuntimeError("this job fails")


@pytest.fixture
def works() -> Works:
    return Works()


@pytest.fixture
def send(redis_client: Redis, settings: Settings) -> Callable[..., None]:
    messages = TaskMessages(Celery("sender", broker=settings.redis_url))

    def send_(*job_ids: str, task: str = "search") -> None:
        for job_id in job_ids:
            redis_client.lpush(KEY, messages.of(task, job_id).text)

    return send_


def backlog_of(redis_client: Redis, works: Works, threads: int) -> Backlog:
    backlog = Backlog(redis_client, KEY, threads)
    backlog.serve({"search": works.search})
    return backlog


def waiting(redis_client: Redis) -> list[str]:
    """Return the jobs on the queue, oldest first."""
    messages = cast("list[bytes]", redis_client.lrange(KEY, 0, -1))
    return [read_message(text)[1][0] for text in reversed(messages)]


def test_a_busy_workers_thread_does_what_waits_oldest_first(
    redis_client: Redis, works: Works, send: Callable[..., None]
) -> None:
    send("second", "third")
    backlog_of(redis_client, works, threads=1).run(works.search, "first")
    assert works.done == ["first", "second", "third"]
    assert redis_client.llen(KEY) == 0


def test_a_worker_with_idle_threads_leaves_all_to_celery(
    redis_client: Redis, works: Works, send: Callable[..., None]
) -> None:
    send("second")
    backlog_of(redis_client, works, threads=2).run(works.search, "first")
    assert works.done == ["first"]
    assert waiting(redis_client) == ["second"]


def test_several_threads_do_each_message_once(redis_client: Redis, works: Works, send: Callable[..., None]) -> None:
    names = [f"job-{number}" for number in range(200)]
    send(*names)
    backlog = backlog_of(redis_client, works, threads=4)
    begin, begun = Event(), [Event() for _ in range(4)]

    def first_one(job_id: str) -> None:
        begun[int(job_id)].set()
        assert begin.wait(SECONDS)

    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(backlog.run, first_one, str(number)) for number in range(4)]
        assert all(each.wait(SECONDS) for each in begun)
        begin.set()
        for each in runs:
            each.result(SECONDS)
    assert sorted(works.done) == sorted(names)


def test_one_that_fails_is_logged_and_the_next_is_done(
    redis_client: Redis, works: Works, send: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    send("fails", "third")
    with caplog.at_level(logging.ERROR):
        backlog_of(redis_client, works, threads=1).run(works.search, "first")
    assert works.done == ["first", "fails", "third"]
    assert "this job fails" in caplog.text


def test_celery_learns_that_its_own_message_failed(
    redis_client: Redis, works: Works, send: Callable[..., None]
) -> None:
    send("second")
    backlog = backlog_of(redis_client, works, threads=1)
    with pytest.raises(RuntimeError, match="this job fails"):
        backlog.run(works.search, "fails")
    assert waiting(redis_client) == ["second"]
    backlog.run(works.search, "first")
    assert works.done == ["fails", "first", "second"], "the failed one is not counted as busy"


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"body": "W10=", "headers": {"task": "search"}}', b"\xff"])
def test_what_is_no_message_stays_for_celery_which_tells_of_it(
    text: bytes, redis_client: Redis, works: Works, send: Callable[..., None]
) -> None:
    redis_client.lpush(KEY, text)
    send("third")
    backlog_of(redis_client, works, threads=1).run(works.search, "first")
    assert works.done == ["first"]
    assert redis_client.rpop(KEY) == text, "it is the next that Celery takes"


def test_a_task_of_another_kind_stays_for_celery(redis_client: Redis, works: Works, send: Callable[..., None]) -> None:
    send("second", task="write_item")
    backlog_of(redis_client, works, threads=1).run(works.search, "first")
    assert waiting(redis_client) == ["second"]


def test_a_worker_that_ends_takes_no_more(redis_client: Redis, works: Works, send: Callable[..., None]) -> None:
    send("second", "third")
    backlog = backlog_of(redis_client, works, threads=1)

    def first(_: str) -> None:
        backlog.end()

    backlog.run(first, "first")
    assert works.done == []
    assert waiting(redis_client) == ["second", "third"]


def test_without_redis_the_thread_goes_back_to_celery(works: Works, caplog: pytest.LogCaptureFixture) -> None:
    nowhere = connect_redis(Settings(redis_url="redis://127.0.0.1:1/0"))
    backlog_of(nowhere, works, threads=1).run(works.search, "first")
    assert works.done == ["first"]
    assert "Redis can't be asked" in caplog.text
