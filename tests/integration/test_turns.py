"""Turns of jobs that fetch by URL, or whose worker died, with a real Redis server and a real Celery sender."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis

from demo.procfile import read_procfile
from shared.jobs import ACTIVE_KEY, Jobs
from shared.queues import SEARCH, TASK_QUEUES, TaskSender, create_celery, queue_key, task_again_of, task_of
from shared.schemas import JobKind
from shared.settings import Settings
from tests.stack import ROOT
from worker.services import FETCHING_TASKS, SEARCH_THREADS
from worker.turns import Turns

URL = "https://shop.example/a.jpg"
TASK = "search_by_url"

Run = Callable[[str, Callable[[str], None]], None]


@pytest.fixture
def jobs(redis_client: Redis, settings: Settings) -> Jobs:
    return Jobs(redis_client, settings)


@pytest.fixture
def run(jobs: Jobs, settings: Settings) -> Iterator[Run]:
    """Does what a worker with one turn does with a message."""
    turns = Turns(limit=1)
    with create_celery(settings, "test") as app:
        tasks = TaskSender(app)
        yield lambda job_id, work: turns.run(TASK, job_id, work, jobs, tasks)


def create(jobs: Jobs) -> str:
    return jobs.create(JobKind.SEARCH, {"source": {"image_url": URL}}).id


def test_a_job_that_would_fetch_without_a_turn_goes_behind_the_others(
    jobs: Jobs, run: Run, redis_client: Redis, settings: Settings
) -> None:
    first, second = create(jobs), create(jobs)
    done: list[str] = []

    def first_fetches(_: str) -> None:
        jobs.renew(second, seconds=-1)
        run(second, done.append)
        assert done == []
        (message,) = redis_client.lrange(queue_key(SEARCH), 0, -1)
        assert json.loads(message)["headers"]["task"] == TASK
        due = redis_client.zscore(ACTIVE_KEY, second)
        assert due is not None
        assert due > time.time() + settings.job_lease_seconds / 2, "recovery sends no second message"

    run(first, first_fetches)
    run(second, done.append)
    assert done == [second]


def test_no_record_is_read_to_tell_whose_turn_it_is(jobs: Jobs, run: Run, redis_client: Redis) -> None:
    job_id = create(jobs)
    redis_client.config_resetstat()
    run(job_id, lambda _: None)
    assert "cmdstat_hgetall" not in redis_client.info("commandstats")


@pytest.mark.parametrize(
    ("kind", "parameters", "task"),
    [
        (JobKind.SEARCH, {"source": {"image_url": URL}}, "search_by_url"),
        (JobKind.SEARCH, {"source": {"sha256": "0"}}, "search"),
        (JobKind.SEARCH, {"source": {"item_id": "a"}}, "search"),
        (JobKind.IMPORT, {"uploads": [], "image_urls": [URL]}, "write_item_by_url"),
        (JobKind.IMPORT, {"uploads": ["uploads/a/0"], "image_urls": [URL]}, "write_item_by_url"),
        (JobKind.IMPORT, {"uploads": ["uploads/a/0"], "image_urls": None}, "write_item"),
        (JobKind.IMPORT, {"mode": "upsert", "path": "a.csv"}, "plan_import"),
    ],
)
def test_the_name_of_a_task_tells_whether_it_fetches(kind: JobKind, parameters: dict[str, Any], task: str) -> None:
    assert task_of(kind, parameters) == task


@pytest.mark.parametrize(
    ("kind", "parameters", "task"),
    [
        (JobKind.SEARCH, {"source": {"image_url": URL}}, "search_alone"),
        (JobKind.SEARCH, {"source": {"sha256": "0"}}, "search_alone"),
        (JobKind.IMPORT, {"uploads": [], "image_urls": [URL]}, "write_item_alone"),
        (JobKind.IMPORT, {"uploads": ["uploads/a/0"], "image_urls": None}, "write_item_alone"),
        (JobKind.IMPORT, {"mode": "upsert", "path": "a.csv"}, "plan_import"),
        (JobKind.REINDEX, {}, "build_release"),
        (JobKind.BATCH_SEARCH, {"all_items": True}, "search_batch"),
    ],
)
def test_a_job_whose_worker_died_is_tried_alone_where_workers_do_several_at_once(
    kind: JobKind, parameters: dict[str, Any], task: str
) -> None:
    assert task_again_of(kind, parameters) == task
    assert TASK_QUEUES[task] == TASK_QUEUES[task_of(kind, parameters)]


def test_a_job_that_fails_gives_its_turn_back(jobs: Jobs, run: Run) -> None:
    def fail(_: str) -> None:
        raise OSError("no such host")

    for _ in range(2):
        with pytest.raises(OSError, match="no such host"):
            run(create(jobs), fail)


def test_half_of_the_threads_of_a_search_worker_are_left_for_jobs_that_fetch_nothing() -> None:
    command = read_procfile(ROOT / "Procfile")["search"]
    assert int(command[command.index("--concurrency") + 1]) == SEARCH_THREADS == 2 * FETCHING_TASKS
