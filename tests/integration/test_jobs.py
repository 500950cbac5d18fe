"""Job records on a real Redis server: states, races, waiting."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from threading import Barrier

import pytest
from redis import Redis

from shared.errors import BrokenImage, JobAlreadyFinished, JobNotFound
from shared.job_record import JobRecord
from shared.jobs import COUNTS_KEY, Jobs, job_key
from shared.redis_client import connect_redis_for_waiting
from shared.schemas import JobKind, JobStatus, Progress
from shared.settings import Settings
from tests.stack import wait_until

RESULT = {"rows": 1, "imported": 1, "failed": 0, "deleted": 0, "embedded": 1}
ERROR = BrokenImage("Truncated.", missing_bytes=5)
CALLBACK = "https://shop.example/hook"


@pytest.fixture
def jobs(redis_client: Redis, settings: Settings) -> Jobs:
    return Jobs(redis_client, settings, connect_redis_for_waiting(settings))


def create(jobs: Jobs, kind: JobKind = JobKind.IMPORT, callback_url: str | None = None) -> str:
    return jobs.create(kind, {"k": 5, "filter": {"colour": "röt"}}, callback_url=callback_url)


def end_attempts(jobs: Jobs, job_id: str) -> list[Callable[[], object]]:
    def cancel() -> bool:
        try:
            return jobs.cancel(job_id).status is JobStatus.CANCELLED
        except JobAlreadyFinished:
            return False

    return [lambda: jobs.succeed(job_id, RESULT), lambda: jobs.fail(job_id, ERROR), cancel]


def test_a_new_job_is_queued_with_all_that_it_needs(jobs: Jobs) -> None:
    before = datetime.now(UTC)
    job_id = jobs.create(JobKind.SEARCH, {"k": 5}, image=b"\x00photo\xff", callback_url=CALLBACK)
    job = jobs.get(job_id)
    assert (job.id, job.kind, job.status, job.parameters) == (job_id, JobKind.SEARCH, JobStatus.QUEUED, {"k": 5})
    assert (job.attempts, job.callback_url, job.deliveries) == (0, CALLBACK, [])
    assert before <= job.created_at <= datetime.now(UTC)
    assert [job.started_at, job.finished_at, job.progress, job.result, job.error] == [None] * 5
    assert jobs.image(job_id) == b"\x00photo\xff"
    assert create(jobs) != create(jobs)


def test_a_started_job_is_running_and_counts_its_tries(jobs: Jobs) -> None:
    job_id = create(jobs)
    first = jobs.start(job_id)
    assert first is not None
    assert (first.status, first.attempts) == (JobStatus.RUNNING, 1)
    second = jobs.start(job_id)
    assert second is not None
    assert (second.attempts, second.started_at) == (2, first.started_at)
    third = jobs.start(job_id, counts_as_attempt=False)
    assert third is not None
    assert third.attempts == 2


def test_a_job_ends_with_a_result_an_error_or_because_nobody_wants_it(jobs: Jobs) -> None:
    succeeded, failed, cancelled = create(jobs), create(jobs), create(jobs)
    for job_id in (succeeded, failed):
        jobs.start(job_id)
    assert jobs.succeed(succeeded, RESULT)
    assert jobs.fail(failed, ERROR)
    assert jobs.cancel(cancelled).status is JobStatus.CANCELLED
    assert jobs.get(succeeded).result == RESULT
    assert jobs.get(failed).error == ERROR.to_wire()
    assert jobs.get(failed).result is jobs.get(succeeded).error is jobs.get(cancelled).result is None
    for job_id, status in ((succeeded, "succeeded"), (failed, "failed"), (cancelled, "cancelled")):
        wire = jobs.get(job_id).to_wire()
        assert (wire["status"], wire["links"]["self"]) == (status, f"/v1/jobs/{job_id}")
        assert wire["finished_at"] is not None
    assert jobs.get(failed).to_wire()["error"]["missing_bytes"] == 5


@pytest.mark.parametrize("first", [0, 1, 2], ids=["succeeded", "failed", "cancelled"])
def test_a_final_status_never_changes(jobs: Jobs, redis_client: Redis, first: int) -> None:
    job_id = create(jobs, callback_url=CALLBACK)
    jobs.start(job_id)
    jobs.set_progress(job_id, Progress(done=1, failed=0, total=2))
    assert end_attempts(jobs, job_id)[first]()
    before: JobRecord = jobs.get(job_id)
    for again in end_attempts(jobs, job_id):
        again()
    assert jobs.start(job_id) is None
    jobs.set_progress(job_id, Progress(done=2, failed=0, total=2))
    jobs.renew(job_id, seconds=-1)
    assert jobs.get(job_id) == before
    assert jobs.overdue() == []
    assert redis_client.hvals(COUNTS_KEY) == [b"1"]
    assert redis_client.xlen(job_key(job_id, "finished")) == 1


def test_of_many_that_end_a_job_at_once_exactly_one_does(jobs: Jobs, redis_client: Redis) -> None:
    for _ in range(25):
        job_id = create(jobs)
        ends = end_attempts(jobs, job_id)
        actions = [*ends, *ends[:2], partial(jobs.start, job_id)]
        together = Barrier(len(actions))

        def act(action: Callable[[], object], together: Barrier = together) -> object:
            together.wait(timeout=20)
            return action()

        with ThreadPoolExecutor(len(actions)) as pool:
            outcomes = list(pool.map(act, actions))
        job = jobs.get(job_id)
        assert outcomes.count(True) == 1
        final = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.SUCCEEDED, JobStatus.FAILED)
        assert job.status is final[outcomes.index(True)]
        assert (job.result is not None) == (job.status is JobStatus.SUCCEEDED)
        assert (job.error is not None) == (job.status is JobStatus.FAILED)
        assert redis_client.xlen(job_key(job_id, "finished")) == 1
        assert jobs.start(job_id) is None
    assert sum(map(int, redis_client.hvals(COUNTS_KEY))) == 25


def test_cancelling_twice_is_fine_and_a_finished_job_stays_finished(jobs: Jobs) -> None:
    job_id, done = create(jobs), create(jobs)
    assert not jobs.is_cancelled(job_id)
    jobs.cancel(job_id)
    assert jobs.is_cancelled(job_id)
    assert jobs.cancel(job_id).status is JobStatus.CANCELLED
    jobs.succeed(done, RESULT)
    with pytest.raises(JobAlreadyFinished, match="succeeded"):
        jobs.cancel(done)


def test_an_unknown_job_is_not_a_waiting_one(jobs: Jobs, redis_client: Redis) -> None:
    for ask in (jobs.get, jobs.cancel, lambda job_id: jobs.wait(job_id, 20)):
        with pytest.raises(JobNotFound):
            ask("nobody")
    assert jobs.start("nobody") is None
    assert jobs.image("nobody") is None
    assert jobs.is_cancelled("nobody")
    assert not jobs.succeed("nobody", RESULT)
    jobs.set_progress("nobody", Progress(done=1, failed=0))
    jobs.renew("nobody")
    assert redis_client.dbsize() == 0, "nothing of it comes to be"


def test_a_forgotten_job_leaves_nothing(jobs: Jobs, redis_client: Redis) -> None:
    jobs.forget(jobs.create(JobKind.SEARCH, {}, image=b"photo", callback_url=CALLBACK))
    assert redis_client.dbsize() == 0


def test_waiting_ends_when_the_job_does_for_all_who_wait(jobs: Jobs, redis_client: Redis) -> None:
    job_id = create(jobs)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(jobs.wait, job_id, 25) for _ in range(4)]
        wait_until(lambda: redis_client.info("clients")["blocked_clients"] == 4, 20, "they block")
        assert not any(future.done() for future in waiting)
        start = time.monotonic()
        jobs.succeed(job_id, RESULT)
        assert [future.result().status for future in waiting] == [JobStatus.SUCCEEDED] * 4
        assert time.monotonic() - start < 10
    assert jobs.wait(job_id, 25).status is JobStatus.SUCCEEDED, "there is nothing to wait for any more"


@pytest.mark.parametrize("seconds", [0, 0.0001, 0.3, -1])
def test_waiting_ends_after_its_time(jobs: Jobs, seconds: float) -> None:
    job_id = create(jobs)
    start = time.monotonic()
    assert jobs.wait(job_id, seconds).status is JobStatus.QUEUED
    assert seconds <= time.monotonic() - start + 0.01 < seconds + 10


def test_progress_is_shown_while_the_job_runs(jobs: Jobs) -> None:
    job_id = create(jobs)
    progress = Progress(done=3, failed=1, total=10, rate_per_second=1.5, eta_seconds=4.7)
    jobs.set_progress(job_id, progress)
    assert jobs.get(job_id).progress == progress.model_dump()
