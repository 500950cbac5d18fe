"""An import that was accepted is not lost with Redis: its record comes back from the database."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis
from sqlalchemy import select, update

from shared.accepted_imports import RESTORED_AFTER, AcceptedImports
from shared.catalogue import Catalogue
from shared.database import connect_database
from shared.errors import ImportEmpty
from shared.jobs import ACTIVE_KEY, UNFINISHED_KEY, Jobs, job_key
from shared.queues import BULK, TaskSender, create_celery, queue_key
from shared.schemas import JobKind
from shared.settings import Settings
from shared.store import Store
from shared.tables import AcceptedImportRow
from tests.conftest import make_migrated_settings
from tests.e2e.pictures import picture
from tests.servers import RedisProcess
from tests.stack import wait_until
from web.app import create_app
from worker.clean_up import clean_up
from worker.recovery import recover_jobs

CSV = b"id,image\na,a.png\n"


@pytest.fixture
def settings(redis_server: RedisProcess, tmp_path: Path) -> Settings:
    return make_migrated_settings(redis_server, tmp_path)


@pytest.fixture
def catalogue(settings: Settings) -> Iterator[Catalogue]:
    engine = connect_database(settings.database_url)
    yield Catalogue(engine)
    engine.dispose()


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    return create_app(settings).test_client()


@pytest.fixture
def jobs(redis_client: Redis, settings: Settings) -> Jobs:
    return Jobs(redis_client, settings)


@pytest.fixture
def accepted(catalogue: Catalogue, redis_client: Redis, settings: Settings) -> AcceptedImports:
    return AcceptedImports(catalogue.engine, redis_client, settings)


@pytest.fixture
def tasks(settings: Settings) -> Iterator[TaskSender]:
    with create_celery(settings, "test") as app:
        yield TaskSender(app)


def send(client: FlaskClient, **headers: str) -> dict[str, Any]:
    data = {"file": (BytesIO(CSV), "products.csv"), "mode": "upsert"}
    answer = client.post("/v1/imports", data=data, headers=headers)
    assert answer.status_code == 202, answer.text
    return dict(answer.get_json())


def kept(catalogue: Catalogue) -> list[str]:
    with catalogue.engine.connect() as connection:
        return list(connection.execute(select(AcceptedImportRow.job_id)).scalars())


def make_older(catalogue: Catalogue) -> None:
    with catalogue.engine.begin() as connection:
        connection.execute(update(AcceptedImportRow).values(created_at=datetime.now(UTC) - 2 * RESTORED_AFTER))


def test_who_asks_for_an_import_that_redis_has_lost_finds_it(client: FlaskClient, redis_client: Redis) -> None:
    job = send(client)
    redis_client.flushall()
    found = client.get(f"/v1/jobs/{job['id']}")
    assert found.status_code == 200
    assert found.json == job
    assert client.get(f"/v1/jobs/{job['id']}/errors").json == {"errors": [], "next_cursor": None}
    assert client.get("/v1/jobs/nothing").status_code == 404


def test_recovery_begins_it_again_and_counts_it_once(
    client: FlaskClient,
    jobs: Jobs,
    accepted: AcceptedImports,
    tasks: TaskSender,
    catalogue: Catalogue,
    redis_client: Redis,
    settings: Settings,
) -> None:
    job = send(client)
    counted = redis_client.hgetall(UNFINISHED_KEY)
    redis_client.flushall()
    accepted.look_after()
    assert not redis_client.exists(ACTIVE_KEY), "it may be on its way to Redis still"
    make_older(catalogue)
    for _ in range(2):
        accepted.look_after()
        recover_jobs(jobs, redis_client, tasks, settings)
        assert client.get(f"/v1/jobs/{job['id']}").json == job
        assert redis_client.llen(queue_key(BULK)) == 1
        assert redis_client.hgetall(UNFINISHED_KEY) == counted


def test_one_that_has_ended_is_forgotten_and_never_comes_back(
    client: FlaskClient, jobs: Jobs, accepted: AcceptedImports, catalogue: Catalogue, redis_client: Redis
) -> None:
    done, waits, cancelled = (send(client)["id"] for _ in range(3))
    jobs.succeed(done, b"{}")
    assert client.delete(f"/v1/jobs/{cancelled}").get_json()["status"] == "cancelled"
    assert sorted(kept(catalogue)) == sorted([done, waits]), "who cancels an import means it, whatever happens next"
    accepted.look_after()
    assert kept(catalogue) == [waits]
    redis_client.flushall()
    make_older(catalogue)
    accepted.look_after()
    assert jobs.active() == [waits]
    assert client.get(f"/v1/jobs/{done}").status_code == 404


def test_one_that_could_not_be_accepted_is_not_kept(
    client: FlaskClient, settings: Settings, catalogue: Catalogue, redis_client: Redis
) -> None:
    redis_client.config_set("maxmemory", 1)
    try:
        data = {"file": (BytesIO(CSV), "products.csv"), "mode": "upsert"}
        assert client.post("/v1/imports", data=data).status_code == 503
    finally:
        redis_client.config_set("maxmemory", 0)
    assert kept(catalogue) == Store(settings.store_url).names("uploads") == []


def test_what_belongs_to_one_that_redis_has_lost_is_not_cleaned_up(
    client: FlaskClient,
    jobs: Jobs,
    accepted: AcceptedImports,
    catalogue: Catalogue,
    redis_client: Redis,
    settings: Settings,
) -> None:
    send(client)
    store = Store(settings.store_url)
    (upload,) = store.names("uploads")
    redis_client.flushall()
    make_older(catalogue)
    accepted.look_after()
    clean_up(catalogue, jobs, store)
    assert store.remove_old_uploads(datetime.now(UTC) + timedelta(days=2), [f"uploads/{upload}/catalogue.csv"]) == 0


def test_a_single_item_that_was_accepted_comes_back_too(client: FlaskClient, jobs: Jobs, redis_client: Redis) -> None:
    answer = client.put(
        "/v1/items/a",
        data={
            "image": (BytesIO(picture("a")), "a.png"),
        },
    )
    assert answer.status_code == 202, answer.text
    job = answer.get_json()
    redis_client.flushall()
    assert client.get(f"/v1/jobs/{job['id']}").json == job
    assert jobs.get(job["id"]).kind is JobKind.IMPORT


def test_who_waits_for_an_import_goes_on_waiting_when_redis_has_lost_it(
    client: FlaskClient, jobs: Jobs, redis_client: Redis
) -> None:
    job = send(client)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: client.get(f"/v1/jobs/{job['id']}?wait=10"))
        wait_until(lambda: bool(redis_client.info("clients")["blocked_clients"]), 10, "it waits")
        redis_client.flushall()
        redis_client.client_kill_filter(_type="normal", skipme=True)  # as when it starts again
        wait_until(lambda: bool(redis_client.exists(job_key(job["id"]))), 10, "it is there again")
        jobs.fail(job["id"], ImportEmpty("It has no rows."))
        assert waiting.result().get_json()["status"] == "failed"


def test_the_files_of_one_whose_record_is_gone_are_kept_and_those_of_one_that_has_ended_are_not(
    client: FlaskClient, jobs: Jobs, accepted: AcceptedImports, catalogue: Catalogue, redis_client: Redis
) -> None:
    job_id = send(client)["id"]
    redis_client.flushall()
    assert not accepted.end(job_id)
    assert accepted.restore(job_id)
    assert not accepted.end(job_id), "it waits"
    jobs.succeed(job_id, b"{}")
    assert accepted.end(job_id)
    assert kept(catalogue) == []


def test_many_can_be_forgotten_at_once(accepted: AcceptedImports) -> None:
    accepted.forget([f"{number:032x}" for number in range(70_000)])


def test_the_same_request_again_is_never_answered_with_one_that_is_not_in_redis_yet(
    client: FlaskClient, redis_client: Redis
) -> None:
    job = send(client, **{"Idempotency-Key": "nightly"})
    redis_client.delete(job_key(job["id"]), ACTIVE_KEY)
    data = {"file": (BytesIO(CSV), "products.csv"), "mode": "upsert"}
    again = client.post("/v1/imports", data=data, headers={"Idempotency-Key": "nightly"})
    assert (again.status_code, again.get_json()["code"]) == (409, "idempotency_key_in_use")
