"""What /metrics and /readyz tell of the whole system, with a real Redis server and no process but this one."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from demo.ports import free_port
from shared.errors import BrokenImage, WorkerLost
from shared.jobs import COUNTS_KEY, Jobs
from shared.queues import BULK, CALLBACKS, MAINTENANCE, SEARCH, SENT_AT, TaskSender, create_celery, queue_key
from shared.schemas import AnsweredFrom, Delivery, JobKind
from shared.settings import Settings
from shared.step_times import StepTimes, write_step_times
from shared.task_message import TaskMessages
from shared.worker_presence import WorkerState, announce_worker, withdraw_worker
from tests.conftest import make_migrated_settings
from tests.servers import RedisProcess
from web.app import create_app
from worker.memory import resident_bytes
from worker.recovery import recover_jobs

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
MIB = 1024 * 1024


@pytest.fixture
def settings(redis_server: RedisProcess, tmp_path: Path) -> Settings:
    return make_migrated_settings(redis_server, tmp_path)


@pytest.fixture
def jobs(redis_client: Redis, settings: Settings) -> Jobs:
    return Jobs(redis_client, settings)


@pytest.fixture
def client(redis_client: Redis, settings: Settings) -> Any:
    return create_app(settings).test_client()


@pytest.fixture
def tasks(settings: Settings) -> Iterator[TaskSender]:
    with create_celery(settings, "test") as app:
        yield TaskSender(app)


def samples(client: Any) -> Samples:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


def test_a_queue_tells_how_many_messages_wait_and_since_when_the_oldest(
    client: Any, redis_client: Redis, settings: Settings, tasks: TaskSender
) -> None:
    with create_celery(settings, "web") as app:
        old = json.loads(TaskMessages(app).of("search", "a").text)
        old["headers"][SENT_AT] -= 100
        redis_client.lpush(queue_key(SEARCH), json.dumps(old))
        redis_client.lpush(queue_key(SEARCH), TaskMessages(app).of("search", "b").text)
    tasks.send("import_chunk", "c", 0)
    found = samples(client)
    assert value(found, "lookalike_queue_messages", queue=SEARCH) == 2
    assert 100 <= value(found, "lookalike_queue_oldest_message_seconds", queue=SEARCH) < 160
    assert value(found, "lookalike_queue_messages", queue=BULK) == 1
    assert 0 < value(found, "lookalike_queue_oldest_message_seconds", queue=BULK) < 60
    for queue in (CALLBACKS, MAINTENANCE):
        assert value(found, "lookalike_queue_oldest_message_seconds", queue=queue) == 0


def test_jobs_are_counted_by_kind_status_and_code_and_answers_by_their_source(
    client: Any, redis_client: Redis, jobs: Jobs
) -> None:
    for source in (AnsweredFrom.ENGINE, AnsweredFrom.ENGINE, AnsweredFrom.EMBEDDING_CACHE):
        jobs.succeed(jobs.create(JobKind.SEARCH, {}).id, {}, answered_from=source)
    jobs.create_succeeded(JobKind.SEARCH, {}, b"{}")
    jobs.succeed(jobs.create(JobKind.IMPORT, {}).id, {})
    for error in (BrokenImage("Truncated."), BrokenImage("Truncated."), WorkerLost("Gone.")):
        jobs.fail(jobs.create(JobKind.SEARCH, {}).id, error)
    cancelled = jobs.create(JobKind.SEARCH, {}).id
    jobs.cancel(cancelled)
    jobs.fail(cancelled, WorkerLost("It has ended."))  # counts no more
    redis_client.hincrby(COUNTS_KEY, "search:succeeded", 10)  # as earlier versions counted

    found = samples(client)
    jobs_total = "lookalike_jobs_total"
    assert value(found, jobs_total, kind="search", status="succeeded", code="") == 14
    assert value(found, jobs_total, kind="import", status="succeeded", code="") == 1
    assert value(found, jobs_total, kind="search", status="failed", code="image_broken") == 2
    assert value(found, jobs_total, kind="search", status="failed", code="worker_lost") == 1
    assert value(found, jobs_total, kind="search", status="cancelled", code="") == 1
    answers = {
        labels[0][1]: count for (name, labels), count in found.items() if name == "lookalike_search_answers_total"
    }
    assert answers == {"engine": 2, "embedding_cache": 1, "result_cache": 1}


def test_tries_of_callbacks_are_counted_by_their_outcome(client: Any, jobs: Jobs) -> None:
    job_id, now = jobs.create(JobKind.SEARCH, {}).id, datetime.now(UTC)
    for error, next_at in (("500", now), ("500", now), ("410", None), (None, None)):
        jobs.add_delivery(job_id, Delivery(attempt=1, at=now, error=error, next_attempt_at=next_at))
    found = samples(client)
    for outcome, count in (("to_be_retried", 2), ("given_up", 1), ("delivered", 1)):
        assert value(found, "lookalike_deliveries_total", outcome=outcome) == count


def test_jobs_that_are_sent_again_are_counted(
    client: Any, redis_client: Redis, jobs: Jobs, tasks: TaskSender, settings: Settings
) -> None:
    parameters = {"source": {"item_id": "a"}, "k": 5}
    job_id = jobs.create(JobKind.SEARCH, parameters).id
    jobs.start(job_id)
    jobs.renew(job_id, seconds=-1)
    assert value(samples(client), "lookalike_recovery_age_seconds") == float("inf")
    recover_jobs(jobs, redis_client, tasks, settings)
    recover_jobs(jobs, redis_client, tasks, settings)  # it has a lease again
    found = samples(client)
    assert value(found, "lookalike_jobs_recovered_total", kind="search") == 1
    assert 0 <= value(found, "lookalike_recovery_age_seconds") < 60


def test_steps_of_searches_are_histograms_over_all_workers(client: Any, redis_client: Redis) -> None:
    for milliseconds in (4.0, 4.5, 80.0):
        times = StepTimes()  # each in another process
        times.add({"decode": milliseconds})
        write_step_times(redis_client, times.take())
    found, name = samples(client), "lookalike_search_step_seconds"
    assert value(found, f"{name}_bucket", step="decode", le="0.0025") == 0
    assert value(found, f"{name}_bucket", step="decode", le="0.005") == 2
    assert value(found, f"{name}_bucket", step="decode", le="0.1") == 3
    assert value(found, f"{name}_bucket", step="decode", le="+Inf") == 3
    assert value(found, f"{name}_count", step="decode") == 3
    assert value(found, f"{name}_sum", step="decode") == pytest.approx(0.0885)


def test_workers_tell_their_memory_and_their_tasks_while_they_are_there(client: Any, redis_client: Redis) -> None:
    state = WorkerState(name="host:7", queues=[CALLBACKS, MAINTENANCE], memory_bytes=resident_bytes(), tasks=3)
    announce_worker(redis_client, state)
    found = samples(client)
    assert value(found, "lookalike_worker_memory_bytes", worker="host:7", queues="callbacks,maintenance") > 20 * MIB
    for queue in (CALLBACKS, MAINTENANCE):
        assert value(found, "lookalike_workers", queue=queue) == 1
        assert value(found, "lookalike_worker_tasks", queue=queue, worker="host:7") == 3
    withdraw_worker(redis_client, state.queues, state.name)
    gone = samples(client)
    assert value(gone, "lookalike_workers", queue=CALLBACKS) == 0
    assert not [labels for name, labels in gone if name.startswith("lookalike_worker_")]
    assert redis_client.keys("lookalike:worker:*") == []


def test_a_queue_without_a_worker_is_a_warning_and_no_reason_to_send_no_traffic(
    client: Any, redis_client: Redis
) -> None:
    queues = [SEARCH, CALLBACKS, MAINTENANCE]
    announce_worker(redis_client, WorkerState(name="host:7", queues=queues, memory_bytes=1, tasks=0))
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json["ready"]) == (200, True)
    assert answer.json["warnings"].keys() == {BULK}
    assert "imports" in answer.json["warnings"][BULK]
    assert (answer.json["search_workers"], answer.json["bulk_workers"]) == (1, 0)
    assert value(samples(client), "lookalike_ready") == 1


def test_redis_that_refuses_writes_is_a_reason(client: Any, redis_client: Redis) -> None:
    redis_client.config_set("maxmemory", 1)
    try:
        answer = client.get("/readyz")
        found = samples(client)
    finally:
        redis_client.config_set("maxmemory", 0)
    assert answer.status_code == 503
    assert "refuses writes (" in answer.json["checks"]["redis"]
    assert "maxmemory" in answer.json["checks"]["redis"]
    assert answer.json["checks"]["database"] == "ok"
    assert value(found, "lookalike_ready") == 0
    assert value(found, "lookalike_redis_up") == 1
    assert client.get("/readyz").status_code == 200


def test_redis_that_is_away_and_a_database_without_tables_are_reasons_too(tmp_path: Path) -> None:
    values = {"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0", "DATABASE_URL": f"sqlite:///{tmp_path}/new.sqlite3"}
    client: Any = create_app(Settings(_env_file=None, **values)).test_client()  # type: ignore[arg-type]
    started = time.monotonic()
    answer = client.get("/readyz")
    assert time.monotonic() - started < 20
    assert answer.status_code == 503
    assert "REDIS_URL does not answer" in answer.json["checks"]["redis"]
    assert "shared.migrations" in answer.json["checks"]["database"]
    assert answer.json["warnings"] == {}, "of workers nothing is known"
    found = samples(client)
    assert value(found, "lookalike_redis_up") == 0
    assert value(found, "lookalike_ready") == 0
    assert not [name for name, _ in found if name.startswith("lookalike_queue")]
