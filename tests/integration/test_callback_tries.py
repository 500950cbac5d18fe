"""Tries of one callback by several workers, with a real Redis server and a real receiver that takes its time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis import Redis

from shared.errors import BrokenImage
from shared.job_record import JobRecord
from shared.jobs import Jobs
from shared.schemas import JobKind
from shared.settings import Settings
from tests.conftest import make_settings
from tests.receiver import Receiver
from tests.servers import RedisProcess
from tests.stack import WEBHOOK_SECRET, wait_until
from worker.callback_endpoints import CallbackEndpoints
from worker.callbacks import deliver_callback
from worker.fetcher import GuardedFetcher


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver(usual_status=500)
    receiver.may_answer.clear()
    yield receiver
    receiver.close()


@pytest.fixture
def settings(redis_server: RedisProcess, tmp_path: Path) -> Settings:
    return make_settings(redis_server, tmp_path, webhook_secret=WEBHOOK_SECRET, webhook_backoff_seconds=60)


@pytest.fixture
def jobs(redis_client: Redis, settings: Settings) -> Jobs:
    return Jobs(redis_client, settings)


@pytest.fixture
def job_id(jobs: Jobs, receiver: Receiver) -> str:
    """A job that has ended, and whose callback is due."""
    job_id = jobs.create(JobKind.SEARCH, {}, callback_url=receiver.url).id
    jobs.fail(job_id, BrokenImage("Truncated."))
    return job_id


def deliver(job_id: str, jobs: Jobs, settings: Settings) -> None:
    """Do what a worker does with one message."""
    fetcher = GuardedFetcher(allow_private=True, timeout_seconds=15)
    with Redis.from_url(settings.redis_url) as redis:
        deliver_callback(job_id, jobs, fetcher, CallbackEndpoints(redis), settings)


def due_again(job: JobRecord) -> datetime:
    return datetime.fromisoformat(job.deliveries[-1]["next_attempt_at"])


def test_bug_copies_of_a_callbacks_message_posted_side_by_side(
    jobs: Jobs, job_id: str, settings: Settings, receiver: Receiver
) -> None:
    with ThreadPoolExecutor(4) as workers:
        first = workers.submit(deliver, job_id, jobs, settings)
        wait_until(lambda: len(receiver.requests) == 1, 10, "the first try")
        for copy in [workers.submit(deliver, job_id, jobs, settings) for _ in range(3)]:
            copy.result(timeout=5)  # ends while the first still waits for its answer
        assert not first.done()
        receiver.may_answer.set()
        first.result(timeout=10)
    assert len(receiver.requests) == 1
    assert len(jobs.get(job_id).deliveries) == 1


def test_bug_a_copy_that_came_late_burnt_the_next_try_at_once(
    jobs: Jobs, job_id: str, settings: Settings, receiver: Receiver
) -> None:
    receiver.may_answer.set()
    for _ in range(5):
        deliver(job_id, jobs, settings)
    assert len(receiver.requests) == 1
    assert [delivery["attempt"] for delivery in jobs.get(job_id).deliveries] == [1]
    assert due_again(jobs.get(job_id)) > datetime.now(UTC)


def test_a_try_whose_worker_died_is_made_again(
    jobs: Jobs, job_id: str, redis_client: Redis, settings: Settings, receiver: Receiver
) -> None:
    receiver.may_answer.set()
    assert jobs.claim_delivery(job_id, seconds=0.3)
    deliver(job_id, jobs, settings)
    assert len(receiver.requests) == 0
    wait_until(lambda: redis_client.exists(f"lookalike:job:{job_id}:delivering") == 0, 5, "the claim ends by itself")
    deliver(job_id, jobs, settings)
    assert len(receiver.requests) == 1


def test_a_try_that_is_due_is_made_and_leaves_no_claim(
    redis_client: Redis, redis_server: RedisProcess, tmp_path: Path, receiver: Receiver
) -> None:
    settings = make_settings(redis_server, tmp_path, webhook_secret=WEBHOOK_SECRET, webhook_backoff_seconds=0.1)
    jobs = Jobs(redis_client, settings)
    job_id = jobs.create(JobKind.SEARCH, {}, callback_url=receiver.url).id
    jobs.fail(job_id, BrokenImage("Truncated."))
    receiver.may_answer.set()
    for number in (1, 2, 3):
        deliver(job_id, jobs, settings)
        assert len(receiver.requests) == number
        wait_until(lambda: due_again(jobs.get(job_id)) <= datetime.now(UTC), 5, "the next try is due")
    assert redis_client.keys("*:delivering") == []
