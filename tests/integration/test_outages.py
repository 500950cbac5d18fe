"""What clients of the web tier see while Redis or the database is away, and what stays behind."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient
from redis import Redis
from sqlalchemy import text

from demo.ports import free_port
from shared.database import connect_database
from shared.errors import RedisUnavailable
from shared.jobs import new_job_id
from shared.schemas import JobKind
from shared.settings import Settings
from tests.conftest import make_migrated_settings, make_settings
from tests.e2e.pictures import picture
from tests.servers import RedisProcess, running_redis
from tests.stack import wait_until
from web.app import create_app, create_services
from web.errors import PROBLEM_TYPE
from web.waiting import send_job

CONNECT_SECONDS = 8


def client_of(settings: Settings) -> FlaskClient:
    return create_app(settings).test_client()


def assert_unavailable(answer: Any, code: str) -> None:
    assert (answer.status_code, answer.content_type, answer.json["code"]) == (503, PROBLEM_TYPE, code), answer.text
    assert int(answer.headers["Retry-After"]) >= 1


def photo_form() -> dict[str, Any]:
    return {"image": (BytesIO(picture("a")), "a.png")}


def uploads_in(settings: Settings) -> list[Path]:
    return list(Path(settings.store_url).glob("uploads/*"))


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where connections are taken and nothing ever answers."""
    with ExitStack() as opened:
        server = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        yield server.getsockname()[1]


@pytest.fixture
def migrated(redis_server: RedisProcess, tmp_path: Path) -> Settings:
    """Settings of an empty catalogue."""
    return make_migrated_settings(redis_server, tmp_path)


def assert_database_unavailable(client: FlaskClient) -> None:
    calls = (
        lambda: client.get("/v1/items/a"),
        lambda: client.put("/v1/items/a", json={"title": "A"}),
        lambda: client.delete("/v1/items/a"),
        lambda: client.get("/v1/attributes"),
        lambda: client.post("/v1/searches", json={"item_id": "a"}),
        lambda: client.post("/v1/searches", data=photo_form()),
    )
    for call in calls:
        assert_unavailable(call(), "database_unavailable")
    assert client.get("/healthz").status_code == 200
    ready = client.get("/readyz")
    body = json.loads(ready.text)
    assert (ready.status_code, body["ready"], body["checks"]["redis"]) == (503, False, "ok")
    assert "DATABASE_URL" in body["checks"]["database"]
    assert int(ready.headers["Retry-After"]) >= 1


def test_while_the_database_refuses_connections_every_use_of_it_is_503(
    redis_server: RedisProcess, tmp_path: Path
) -> None:
    url = f"postgresql://lookalike:hunter2@127.0.0.1:{free_port()}/lookalike"
    client = client_of(make_settings(redis_server, tmp_path, DATABASE_URL=url))
    assert_database_unavailable(client)
    assert "hunter2" not in client.get("/readyz").text


def test_a_database_that_never_answers_hangs_no_request(
    redis_server: RedisProcess, tmp_path: Path, silent_port: int
) -> None:
    url = f"postgresql://lookalike@127.0.0.1:{silent_port}/lookalike"
    client = client_of(make_settings(redis_server, tmp_path, DATABASE_URL=url))
    start = time.monotonic()
    assert_unavailable(client.get("/v1/items/a"), "database_unavailable")
    assert client.get("/readyz").status_code == 503
    assert time.monotonic() - start < 2 * CONNECT_SECONDS


def test_a_connection_to_postgresql_is_given_up_when_no_packet_comes_through(postgres_url: str) -> None:
    engine = connect_database(postgres_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
        raw = connection.connection.driver_connection
        assert raw is not None
        with socket.socket(fileno=socket.dup(raw.fileno())) as used:
            assert used.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000
            assert used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert used.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
    engine.dispose()


def test_what_was_uploaded_goes_when_its_job_cant_be_sent(migrated: Settings, tmp_path: Path) -> None:
    with running_redis(tmp_path) as redis:
        settings = migrated.model_copy(update={"redis_url": redis.url})
        client = client_of(settings)
        assert client.put("/v1/items/a", data=photo_form()).status_code == 202
        assert len(uploads_in(settings)) == 1, "this test looks for uploads in the wrong place"
        redis.kill()

        assert_unavailable(client.put("/v1/items/b", data=photo_form()), "redis_unavailable")
        table = {"file": (BytesIO(b"id,image\na,a.png\n"), "products.csv")}
        assert_unavailable(client.post("/v1/imports", data=table), "redis_unavailable")
        assert len(uploads_in(settings)) == 1


def test_who_waits_for_a_job_that_was_sent_is_told_of_it_though_redis_fails_meanwhile(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server, Redis.from_url(server.url) as redis, ThreadPoolExecutor(1) as pool:
        services = create_services(make_settings(server, tmp_path))

        def send() -> Response:
            with Flask("web").test_request_context(headers={"Prefer": "wait=2"}):
                return send_job(services, new_job_id(), JobKind.SEARCH, {"source": {"item_id": "a"}})

        sending = pool.submit(send)
        wait_until(lambda: redis.zcard("lookalike:jobs:active") == 1, 20, "the job is sent")
        server.kill()
        answer = sending.result()
        services.job_ends.close()
        assert (answer.status_code, json.loads(answer.data)["status"]) == (202, "queued")
        server.start()
        assert answer.headers["Location"] == f"/v1/jobs/{redis.zrange('lookalike:jobs:active', 0, 0)[0].decode()}"


def test_bug_who_waits_for_a_job_that_redis_lost_is_told_to_send_it_again(
    redis_server: RedisProcess, redis_client: Redis, tmp_path: Path
) -> None:
    """It was 404 `job_not_found`, which no client expects of a request that makes a job."""
    services = create_services(make_settings(redis_server, tmp_path))

    def send() -> Response:
        with Flask("web").test_request_context(headers={"Prefer": "wait=2"}):
            return send_job(services, new_job_id(), JobKind.SEARCH, {"source": {"item_id": "a"}})

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send)
        wait_until(lambda: redis_client.zcard("lookalike:jobs:active") == 1, 20, "the job is sent")
        redis_client.flushall()
        with pytest.raises(RedisUnavailable, match="Send the request again"):
            sending.result(20)
    services.job_ends.close()
