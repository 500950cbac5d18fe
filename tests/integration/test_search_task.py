"""The search task: what becomes of a job whose photo waits for the model."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Semaphore
from typing import Any, cast

import pytest
import redis
from celery import Celery

from shared.jobs import Jobs
from shared.queues import SEARCH, TaskSender, create_celery, queue_key
from shared.settings import Settings
from shared.task_message import read_message
from tests.conftest import make_settings
from tests.engine_bench import COLOURS, SECONDS, Bench, photo
from tests.servers import RedisProcess
from tests.stack import wait_until
from worker.engine import Engine
from worker.job_tasks import add_job_tasks
from worker.services import Services


class BenchServices(Services):
    """A worker's parts, with an engine that is there already."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        super().__init__(settings)
        self._bench_engine = engine

    @property
    def engine(self) -> Engine:
        return self._bench_engine


class Busy:
    """A search worker's task, and a model that has begun with another photo and goes on when the test lets it."""

    def __init__(self, settings: Settings, client: redis.Redis, pool: ThreadPoolExecutor) -> None:
        self.bench = Bench(settings, client)
        self.passes = self.bench.encoder.passes = Semaphore(0)
        self.jobs: Jobs = self.bench.jobs
        services = BenchServices(settings, self.bench.engine)
        app: Celery = create_celery(settings, "test")
        add_job_tasks(app, services, TaskSender(app))
        self._tasks: Any = app.tasks
        self._pool = pool
        self.first_id, self.first = self.start("green")
        wait_until(lambda: self.bench.encoder.batches == [1], SECONDS, "the model is busy")

    def start(self, colour: str, task: str = "search") -> tuple[str, "Future[None]"]:
        image = photo(COLOURS[colour])
        job_id = self.bench.job(image).id
        return job_id, self._pool.submit(self._tasks[task], job_id)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_a_job_that_is_cancelled_while_its_photo_waits_leaves_before_the_model_runs(
    settings: Settings, redis_client: redis.Redis, pool: ThreadPoolExecutor
) -> None:
    busy = Busy(settings, redis_client, pool)
    cancelled_id, cancelled = busy.start("red")
    wait_until(lambda: len(busy.bench.engine.embedder) == 1, SECONDS, "the photo waits")
    busy.jobs.cancel(cancelled_id)
    cancelled.result(SECONDS)
    busy.passes.release(9)
    busy.first.result(SECONDS)
    assert busy.bench.encoder.batches == [1]
    assert busy.jobs.get(cancelled_id).status == "cancelled"
    assert busy.jobs.get(busy.first_id).status == "succeeded"


def test_a_job_whose_time_is_over_while_its_photo_waits_fails_before_the_model_runs(
    redis_server: RedisProcess, redis_client: redis.Redis, pool: ThreadPoolExecutor, tmp_path: Any
) -> None:
    busy = Busy(make_settings(redis_server, tmp_path, search_deadline_seconds=1), redis_client, pool)
    late_id, late = busy.start("red")
    late.result(SECONDS)
    job = busy.jobs.get(late_id)
    busy.passes.release(9)
    busy.first.result(SECONDS)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "deadline_exceeded"
    assert busy.bench.encoder.batches == [1]


def test_of_jobs_whose_worker_died_one_is_tried_at_a_time_and_no_other_is_begun(
    settings: Settings, redis_client: redis.Redis, pool: ThreadPoolExecutor
) -> None:
    busy = Busy(settings, redis_client, pool)
    alone_id, alone = busy.start("red", "search_alone")
    wait_until(lambda: len(busy.bench.engine.embedder) == 1, SECONDS, "the photo waits")
    next_id, next_ = busy.start("blue", "search_alone")
    next_.result(SECONDS)
    assert busy.jobs.get(next_id).attempts == 0, "if the worker dies now, this one is not to blame"
    (message,) = cast("list[bytes]", redis_client.lrange(queue_key(SEARCH), 0, -1))
    assert read_message(message) == ("search_alone", [next_id])
    busy.passes.release(9)
    for search in (busy.first, alone):
        search.result(SECONDS)
    assert [busy.jobs.get(job_id).status for job_id in (busy.first_id, alone_id)] == ["succeeded"] * 2
