"""Jobs whose worker died, on a real Redis server with a real Celery application as the sender."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from demo.ports import free_port
from shared.errors import BrokenImage
from shared.jobs import ACTIVE_KEY, Jobs, job_key
from shared.queues import BULK, CALLBACKS, QUEUES, SEARCH, TASK_QUEUES, TaskSender, create_celery, queue_key
from shared.schemas import JobKind, JobStatus
from shared.settings import Settings
from tests.conftest import make_settings
from tests.servers import RedisProcess
from worker.app import SCHEDULE
from worker.app import app as worker_app
from worker.callbacks import dispatch_callbacks
from worker.job_tasks import add_job_tasks
from worker.recovery import recover_jobs
from worker.services import Services

IMPORT = {"mode": "upsert", "path": "products.csv"}
URL = "https://shop.example/a.jpg"
ITEM: dict[str, Any] = {"item_id": "a", "uploads": [], "image_urls": None, "title": "", "attributes": {}}
ITEM_BY_URL = {**ITEM, "image_urls": [URL]}
SEARCH_OF_AN_ITEM = {"source": {"item_id": "a"}, "k": 5}
SEARCH_BY_URL = {"source": {"image_url": URL}, "k": 5}
KINDS = (JobKind.SEARCH, JobKind.IMPORT)
CALLBACK = "https://shop.example/hook"


@pytest.fixture
def settings(redis_server: RedisProcess, tmp_path: Path) -> Settings:
    return make_settings(redis_server, tmp_path, job_max_attempts=2, search_deadline_seconds=120)


@pytest.fixture
def jobs(redis_client: Redis, settings: Settings) -> Jobs:
    return Jobs(redis_client, settings)


@pytest.fixture
def tasks(settings: Settings) -> Iterator[TaskSender]:
    with create_celery(settings, "test") as app:
        yield TaskSender(app)


@pytest.fixture
def recover(jobs: Jobs, redis_client: Redis, tasks: TaskSender, settings: Settings) -> Any:
    return lambda: recover_jobs(jobs, redis_client, tasks, settings)


def waiting(redis: Redis, queue: str) -> list[tuple[Any, ...]]:
    """Return the messages of a queue as (task, *arguments), the oldest first."""
    found = []
    for entry in reversed(redis.lrange(queue_key(queue), 0, -1)):
        message = json.loads(entry)
        arguments, _, _ = json.loads(base64.b64decode(message["body"]))
        found.append((message["headers"]["task"], *arguments))
    return found


def all_waiting(redis: Redis) -> dict[str, list[tuple[Any, ...]]]:
    return {queue: messages for queue in QUEUES if (messages := waiting(redis, queue))}


def overdue(jobs: Jobs, kind: JobKind, parameters: dict[str, Any], tries: int = 0, **options: Any) -> str:
    """Create a job that `tries` workers began, and whose lease has run out."""
    job_id = jobs.create(kind, parameters, **options).id
    for _ in range(tries):
        jobs.start(job_id, counts_as_attempt="mode" not in parameters)
    jobs.renew(job_id, seconds=-1)
    return job_id


def age(redis: Redis, job_id: str, seconds: float) -> None:
    created_at = datetime.now(UTC) - timedelta(seconds=seconds)
    redis.hset(job_key(job_id), "created_at", created_at.isoformat())


def test_a_message_goes_to_the_queue_of_its_task_with_ids_alone(tasks: TaskSender, redis_client: Redis) -> None:
    tasks.send("search", "job-1")
    tasks.send("import_chunk", "job-2", 7)
    assert all_waiting(redis_client) == {"search": [("search", "job-1")], "bulk": [("import_chunk", "job-2", 7)]}


def test_every_task_of_the_workers_has_a_queue_and_every_queue_has_tasks() -> None:
    own = {name for name in worker_app.tasks if not name.startswith("celery.")}
    assert own == set(TASK_QUEUES)
    assert set(TASK_QUEUES.values()) == set(QUEUES)
    assert set(SCHEDULE) <= own


def test_jobs_in_hand_and_jobs_that_just_came_are_left_alone(jobs: Jobs, recover: Any, redis_client: Redis) -> None:
    jobs.create(JobKind.SEARCH, SEARCH_OF_AN_ITEM)
    jobs.start(jobs.create(JobKind.IMPORT, IMPORT).id)
    recover()
    assert all_waiting(redis_client) == {}


@pytest.mark.parametrize(
    ("kind", "parameters", "queue", "task", "again"),
    [
        (JobKind.SEARCH, SEARCH_OF_AN_ITEM, SEARCH, "search", "search_alone"),
        (JobKind.SEARCH, SEARCH_BY_URL, SEARCH, "search_by_url", "search_alone"),
        (JobKind.IMPORT, ITEM, SEARCH, "write_item", "write_item_alone"),
        (JobKind.IMPORT, ITEM_BY_URL, SEARCH, "write_item_by_url", "write_item_alone"),
        (JobKind.IMPORT, IMPORT, BULK, "plan_import", "plan_import"),
        (JobKind.REINDEX, {}, BULK, "build_release", "build_release"),
    ],
    ids=["search", "search by url", "item", "item by url", "import", "release"],
)
@pytest.mark.parametrize("tries", [0, 1], ids=["queued", "running"])
def test_a_job_that_stands_still_is_sent_again_once(
    jobs: Jobs,
    recover: Any,
    redis_client: Redis,
    kind: JobKind,
    parameters: dict[str, Any],
    queue: str,
    task: str,
    again: str,
    tries: int,
) -> None:
    job_id = overdue(jobs, kind, parameters, tries)
    before = jobs.get(job_id)
    recover()
    recover()
    assert all_waiting(redis_client) == {queue: [(again if tries else task, job_id)]}
    assert jobs.get(job_id) == before
    assert jobs.overdue() == []


@pytest.mark.parametrize(
    ("kind", "parameters", "own"),
    [
        (JobKind.SEARCH, SEARCH_OF_AN_ITEM, ("search",)),
        (JobKind.IMPORT, ITEM, ("write_item",)),
        (JobKind.IMPORT, IMPORT, ("import_chunk", 3)),
    ],
    ids=["search", "item", "import"],
)
@pytest.mark.parametrize("is_lost", [False, True], ids=["waiting", "lost"])
def test_a_job_behind_others_is_sent_again_only_if_its_own_message_is_lost(
    jobs: Jobs,
    recover: Any,
    tasks: TaskSender,
    redis_client: Redis,
    kind: JobKind,
    parameters: dict[str, Any],
    own: tuple[Any, ...],
    is_lost: bool,
) -> None:
    task, *rest = own
    tasks.send(task, "another job", *rest)
    job_id = overdue(jobs, kind, parameters)
    if not is_lost:
        tasks.send(task, job_id, *rest)
    recover()
    sent = [entry for messages in all_waiting(redis_client).values() for entry in messages]
    first = task if task != "import_chunk" else "plan_import"
    assert sent == [(task, "another job", *rest), (first, job_id) if is_lost else (task, job_id, *rest)]
    assert jobs.overdue() == []
    assert redis_client.zscore(ACTIVE_KEY, job_id), "it stays watched over"


@pytest.mark.parametrize("parameters", [SEARCH_OF_AN_ITEM, ITEM], ids=["search", "item"])
def test_a_job_whose_worker_died_is_sent_again_though_others_wait(
    jobs: Jobs, recover: Any, tasks: TaskSender, redis_client: Redis, parameters: dict[str, Any]
) -> None:
    tasks.send("search", "another job")
    job_id = overdue(jobs, KINDS[parameters is ITEM], parameters, tries=1)
    recover()
    task = "write_item_alone" if parameters is ITEM else "search_alone"
    assert all_waiting(redis_client) == {SEARCH: [("search", "another job"), (task, job_id)]}


def test_an_import_goes_on_behind_its_own_chunks_however_often_its_workers_died(
    jobs: Jobs, recover: Any, tasks: TaskSender, redis_client: Redis
) -> None:
    job_id = overdue(jobs, JobKind.IMPORT, IMPORT, tries=9)
    age(redis_client, job_id, 100_000)
    recover()
    assert all_waiting(redis_client) == {BULK: [("plan_import", job_id)]}
    assert jobs.get(job_id).status is JobStatus.RUNNING


@pytest.mark.parametrize("parameters", [SEARCH_OF_AN_ITEM, ITEM], ids=["search", "item"])
def test_a_job_whose_workers_died_each_time_fails_as_worker_lost(
    jobs: Jobs, recover: Any, redis_client: Redis, parameters: dict[str, Any]
) -> None:
    job_id = overdue(jobs, KINDS[parameters is ITEM], parameters, tries=2)
    recover()
    error = jobs.get(job_id).error
    assert error is not None
    assert (error["code"], jobs.get(job_id).status) == ("worker_lost", JobStatus.FAILED)
    assert "2 times" in error["detail"]
    assert all_waiting(redis_client) == {}


def test_a_job_whose_worker_died_and_that_waits_for_its_turn_gets_no_second_message(
    jobs: Jobs, recover: Any, tasks: TaskSender, redis_client: Redis
) -> None:
    job_id = overdue(jobs, JobKind.SEARCH, SEARCH_OF_AN_ITEM, tries=1)
    tasks.send("search_alone", job_id)
    recover()
    assert all_waiting(redis_client) == {SEARCH: [("search_alone", job_id)]}
    assert jobs.overdue() == []


@pytest.mark.parametrize("tries", [0, 1, 2], ids=["queued", "running", "tried too often"])
def test_a_search_that_nobody_waits_for_any_more_fails_with_deadline_exceeded(
    jobs: Jobs, recover: Any, redis_client: Redis, tries: int
) -> None:
    job_id = overdue(jobs, JobKind.SEARCH, SEARCH_OF_AN_ITEM, tries, image=b"photo")
    item = overdue(jobs, JobKind.IMPORT, ITEM, 1)
    for either in (job_id, item):
        age(redis_client, either, 121)
    recover()
    error = jobs.get(job_id).error
    assert error is not None
    assert error["code"] == "deadline_exceeded"
    assert redis_client.get(job_key(job_id, "image")) is None
    assert all_waiting(redis_client) == {SEARCH: [("write_item_alone", item)]}, "an item that was sent is still wanted"


def test_what_has_ended_or_is_gone_is_not_watched_any_more(jobs: Jobs, recover: Any, redis_client: Redis) -> None:
    ended, gone = overdue(jobs, JobKind.SEARCH, SEARCH_OF_AN_ITEM), overdue(jobs, JobKind.IMPORT, IMPORT)
    jobs.fail(ended, BrokenImage("No."))
    redis_client.zadd(ACTIVE_KEY, {ended: 1})  # as a worker that starts it at the same moment would
    redis_client.delete(job_key(gone))
    recover()
    assert redis_client.exists(ACTIVE_KEY) == 0
    assert all_waiting(redis_client) == {}
    assert jobs.get(ended).status is JobStatus.FAILED


def test_a_job_that_could_not_be_sent_again_stays_watched(
    jobs: Jobs, redis_client: Redis, settings: Settings, tmp_path: Path
) -> None:
    job_id = overdue(jobs, JobKind.SEARCH, SEARCH_OF_AN_ITEM, 1)
    nowhere = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}/0"})
    with create_celery(nowhere, "test") as app, pytest.raises(RedisConnectionError):
        recover_jobs(jobs, redis_client, TaskSender(app), settings)
    score = redis_client.zscore(ACTIVE_KEY, job_id)
    assert score is not None
    assert score < datetime.now(UTC).timestamp() + settings.job_lease_seconds + 1, "its next turn comes soon"
    assert jobs.get(job_id).status is JobStatus.RUNNING


def test_callbacks_that_are_due_are_sent_once(
    jobs: Jobs, tasks: TaskSender, redis_client: Redis, settings: Settings
) -> None:
    due = jobs.create(JobKind.SEARCH, SEARCH_OF_AN_ITEM, callback_url=CALLBACK).id
    jobs.create(JobKind.SEARCH, SEARCH_OF_AN_ITEM, callback_url=CALLBACK)
    jobs.cancel(due)
    assert dispatch_callbacks(jobs, tasks, settings) == 1
    assert dispatch_callbacks(jobs, tasks, settings) == 0
    assert all_waiting(redis_client) == {CALLBACKS: [("deliver_callback", due)]}
    assert jobs.claim_due_callbacks(0) == [], "it is due again only when its message must be lost"


BATCH = {"all_items": True, "terms": {}}


@pytest.mark.parametrize("tries", [0, 1], ids=["queued", "running"])
def test_a_batch_search_that_stands_still_is_sent_again_once(
    jobs: Jobs, recover: Any, redis_client: Redis, tries: int
) -> None:
    job_id = overdue(jobs, JobKind.BATCH_SEARCH, BATCH, tries)
    recover()
    jobs.renew(job_id, seconds=-1)
    recover()
    assert all_waiting(redis_client) == {BULK: [("search_batch", job_id)]}
    assert jobs.overdue() == []


def test_a_batch_search_that_waits_for_its_turn_is_left_alone_however_often_it_was_tried(
    jobs: Jobs, recover: Any, tasks: TaskSender, redis_client: Redis
) -> None:
    job_id = overdue(jobs, JobKind.BATCH_SEARCH, BATCH, tries=2)
    tasks.send("import_chunk", "another job", 3)
    tasks.send("search_batch", job_id)
    recover()
    assert all_waiting(redis_client) == {BULK: [("import_chunk", "another job", 3), ("search_batch", job_id)]}
    assert jobs.get(job_id).status is JobStatus.RUNNING


@pytest.mark.parametrize(
    ("kind", "parameters", "task"),
    [
        (JobKind.SEARCH, SEARCH_OF_AN_ITEM, "search"),
        (JobKind.SEARCH, SEARCH_OF_AN_ITEM, "search_alone"),
        (JobKind.IMPORT, ITEM, "write_item_alone"),
        (JobKind.BATCH_SEARCH, BATCH, "search_batch"),
        (JobKind.REINDEX, {}, "build_release"),
    ],
)
def test_bug_a_job_whose_message_came_again_at_once_whenever_its_worker_died_was_never_given_up(
    jobs: Jobs, settings: Settings, kind: JobKind, parameters: dict[str, Any], task: str
) -> None:
    job_id = jobs.create(kind, parameters).id
    for _ in range(settings.job_max_attempts):
        jobs.start(job_id)
    with create_celery(settings, "test") as app:
        add_job_tasks(app, Services(settings), TaskSender(app))
        app.tasks[task](job_id)
    error = jobs.get(job_id).error
    assert error is not None
    assert error["code"] == "worker_lost"


def test_a_batch_search_whose_workers_died_each_time_fails_as_worker_lost(
    jobs: Jobs, recover: Any, redis_client: Redis
) -> None:
    job_id = overdue(jobs, JobKind.BATCH_SEARCH, BATCH, tries=2)
    recover()
    error = jobs.get(job_id).error
    assert error is not None
    assert error["code"] == "worker_lost"
    assert all_waiting(redis_client) == {}
