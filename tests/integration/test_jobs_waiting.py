"""Clients that wait for jobs to end: one listener for all of them, on a real Redis server."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread

import pytest
from redis import Redis

from shared.job_record import JobRecord
from shared.jobs import FINISHED_KEY, Jobs
from shared.redis_client import connect_redis_for_listening
from shared.schemas import JobKind, JobStatus
from shared.settings import Settings
from tests.conftest import make_settings
from tests.servers import RedisProcess, running_redis
from tests.stack import wait_until
from web.job_ends import JobEnds

RESULT: dict[str, list[str]] = {"hits": []}
LONG = 60


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    """A server that a test may kill, and whose clients are the test's alone."""
    with running_redis(tmp_path) as server:
        yield server


@pytest.fixture
def settings(server: RedisProcess, tmp_path: Path) -> Settings:
    return make_settings(server, tmp_path)


@pytest.fixture
def redis(server: RedisProcess) -> Iterator[Redis]:
    with Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def jobs(redis: Redis, settings: Settings) -> Jobs:
    return Jobs(redis, settings)


@pytest.fixture
def ends(jobs: Jobs, settings: Settings) -> Iterator[JobEnds]:
    ends = JobEnds(connect_redis_for_listening(settings), jobs)
    yield ends
    ends.close()
    jobs.cancel(create(jobs))  # something ends, so that the listener need not wait to see that it shall end


def create(jobs: Jobs) -> str:
    return jobs.create(JobKind.SEARCH, {"k": 5}).id


def wait(ends: JobEnds, jobs: Jobs, job_id: str, began: Callable[[], object] = lambda: None) -> JobRecord:
    """Wait for a job as web does; calls `began` when the job was read and found not to have ended."""
    with ends.watching(job_id) as watch:
        record = jobs.get(job_id)
        while not record.status.is_final:
            began()
            assert watch.woken.wait(LONG), "nobody woke it"
            watch.woken.clear()
            record = watch.record or jobs.get(job_id)
        return record


def test_all_who_wait_are_woken_by_the_end_of_their_job_and_not_by_another(
    ends: JobEnds, jobs: Jobs, redis: Redis
) -> None:
    job_id, other = create(jobs), create(jobs)
    waiting = 0

    def began() -> None:
        nonlocal waiting
        waiting += 1

    with ThreadPoolExecutor(9) as pool:
        for_job = [pool.submit(wait, ends, jobs, job_id, began) for _ in range(8)]
        for_other = pool.submit(wait, ends, jobs, other)
        wait_until(lambda: waiting >= 8 and redis.info("clients")["blocked_clients"] == 1, 20, "one connection listens")
        assert not any(future.done() for future in for_job)
        start = time.monotonic()
        jobs.succeed(job_id, RESULT)
        assert {future.result().status for future in for_job} == {JobStatus.SUCCEEDED}
        assert time.monotonic() - start < 10
        assert not for_other.done()
        jobs.cancel(other)
        assert for_other.result().status is JobStatus.CANCELLED


def test_the_end_of_a_job_is_read_once_for_all_who_wait(ends: JobEnds, jobs: Jobs, redis: Redis) -> None:
    with ends.watching(create(jobs)) as first:
        assert first.woken.wait(20), "the listener has begun"
    job_id = create(jobs)
    with ends.watching(job_id) as one, ends.watching(job_id) as other:
        redis.config_resetstat()
        jobs.succeed(job_id, RESULT)
        assert one.woken.wait(20)
        assert other.woken.wait(20)
        assert one.record == other.record == jobs.get(job_id)
    reads = redis.info("commandstats")["cmdstat_hgetall"]["calls"]
    assert reads == 2, "the listener's, and the one of this test"


def test_no_end_is_missed_however_early_or_late_it_comes(ends: JobEnds, jobs: Jobs) -> None:
    with ThreadPoolExecutor(4) as pool:
        for _ in range(100):
            job_ids = [create(jobs) for _ in range(2)]
            waiting = [pool.submit(wait, ends, jobs, job_id) for job_id in job_ids]
            ending = [pool.submit(jobs.succeed, job_id, RESULT) for job_id in job_ids]
            assert all(future.result() for future in ending)
            assert {future.result().status for future in waiting} == {JobStatus.SUCCEEDED}


def test_what_ended_while_redis_was_away_is_seen_when_it_is_back(
    ends: JobEnds, jobs: Jobs, redis: Redis, server: RedisProcess, settings: Settings
) -> None:
    first, second = create(jobs), create(jobs)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(wait_through_failures, ends, jobs, job_id) for job_id in (first, second)]
        wait_until(lambda: redis.info("clients")["blocked_clients"] == 1, 20, "it listens")
        server.kill()
        server.start()
        jobs.succeed(first, RESULT)  # before or after the listener is back
        assert waiting[0].result().status is JobStatus.SUCCEEDED
        wait_until(lambda: redis.info("clients")["blocked_clients"] == 1, 20, "it listens again")
        jobs.cancel(second)
        assert waiting[1].result().status is JobStatus.CANCELLED


def wait_through_failures(ends: JobEnds, jobs: Jobs, job_id: str) -> JobRecord:
    """Wait for a job, though Redis is away for a moment."""
    with ends.watching(job_id) as watch:
        while True:
            assert watch.woken.wait(LONG), "nobody woke it"
            watch.woken.clear()
            record = watch.record or jobs.get(job_id)
            if record.status.is_final:
                return record


def test_a_listener_that_could_not_be_started_is_started_for_the_next_who_waits(
    ends: JobEnds, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="can't start"):
        patch.setattr(Thread, "start", refuse)
        with ends.watching(create(jobs)):
            pass
    with ends.watching(create(jobs)) as watch:
        assert watch.woken.wait(20), "the listener has begun"


def test_a_listener_that_meets_what_it_does_not_expect_wakes_everybody_and_listens_on(
    ends: JobEnds, jobs: Jobs, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = create(jobs)
    with ends.watching(job_id) as watch:
        assert watch.woken.wait(20), "the listener has begun"
        watch.woken.clear()
        wait_until(lambda: redis.info("clients")["blocked_clients"] == 1, 20, "it listens")
        redis.xadd(FINISHED_KEY, {"unknown": "x"})
        assert watch.woken.wait(20), "it was woken, to read for itself"
        wait_until(lambda: redis.info("clients")["blocked_clients"] == 1, 20, "it listens again")
        watch.woken.clear()
        jobs.succeed(job_id, RESULT)
        assert watch.woken.wait(20)
        assert watch.record == jobs.get(job_id)
    assert "KeyError" in caplog.text
