"""Turns of jobs that fetch by URL, with a real Redis server and a real Celery application as the sender."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis

from demo.procfile import read_procfile
from shared.jobs import ACTIVE_KEY, Jobs
from shared.queues import SEARCH, TaskSender, create_celery, queue_key
from shared.schemas import JobKind
from shared.settings import Settings
from tests.stack import ROOT
from worker.fetch_turns import FetchTurns
from worker.services import FETCHING_TASKS

URL = "https://shop.example/a.jpg"
SEARCH_BY_URL: dict[str, Any] = {"source": {"image_url": URL}}
ITEM_BY_URL: dict[str, Any] = {"uploads": [], "image_urls": [URL]}
FETCHING = [SEARCH_BY_URL, ITEM_BY_URL]
OTHERS: list[dict[str, Any]] = [
    {"source": {"sha256": "0"}},
    {"source": {"item_id": "a"}},
    {"uploads": ["uploads/a/0"], "image_urls": None},
]

Run = Callable[[str, Callable[[str], None]], None]


@pytest.fixture
def jobs(redis_client: Redis, settings: Settings) -> Jobs:
    return Jobs(redis_client, settings)


@pytest.fixture
def run(jobs: Jobs, settings: Settings) -> Iterator[Run]:
    """Does what a worker with one turn does with a message."""
    turns = FetchTurns(limit=1)
    with create_celery(settings, "test") as app:
        tasks = TaskSender(app)
        yield lambda job_id, work: turns.run("search", job_id, work, jobs, tasks)


@pytest.mark.parametrize("parameters", FETCHING)
def test_a_job_that_would_fetch_without_a_turn_goes_behind_the_others(
    parameters: dict[str, Any], jobs: Jobs, run: Run, redis_client: Redis, settings: Settings
) -> None:
    first, second = (jobs.create(JobKind.SEARCH, parameters) for _ in range(2))
    done: list[str] = []

    def first_fetches(_: str) -> None:
        jobs.renew(second, seconds=-1)
        run(second, done.append)
        assert done == []
        assert redis_client.llen(queue_key(SEARCH)) == 1
        due = redis_client.zscore(ACTIVE_KEY, second)
        assert due is not None
        assert due > time.time() + settings.job_lease_seconds / 2, "recovery sends no second message"

    run(first, first_fetches)
    run(second, done.append)
    assert done == [second]


def test_jobs_that_fetch_nothing_or_have_ended_or_are_gone_need_no_turn(jobs: Jobs, run: Run) -> None:
    ended = jobs.create(JobKind.SEARCH, SEARCH_BY_URL)
    jobs.cancel(ended)
    others = [*(jobs.create(JobKind.SEARCH, parameters) for parameters in OTHERS), ended, "gone"]
    done: list[str] = []

    def fetches(_: str) -> None:
        for job_id in others:
            run(job_id, done.append)

    run(jobs.create(JobKind.SEARCH, SEARCH_BY_URL), fetches)
    assert done == others


def test_a_job_that_fails_gives_its_turn_back(jobs: Jobs, run: Run) -> None:
    def fail(_: str) -> None:
        raise OSError("no such host")

    for _ in range(2):
        with pytest.raises(OSError, match="no such host"):
            run(jobs.create(JobKind.SEARCH, SEARCH_BY_URL), fail)


def test_half_of_the_threads_of_a_search_worker_are_left_for_jobs_that_fetch_nothing() -> None:
    command = read_procfile(ROOT / "Procfile")["search"]
    assert int(command[command.index("--concurrency") + 1]) == 2 * FETCHING_TASKS
