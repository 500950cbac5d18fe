"""What the processes log: JSON with the ids of requests, jobs and keys, and no secret, whatever fails.

One stack whose every secret is known is driven through failures, stopped, and then all that it wrote is read.
"""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
import requests

from demo.ports import free_port
from demo.processes import ProcessGroup
from tests.e2e.pictures import picture
from tests.servers import RedisProcess, running_redis
from tests.stack import ROOT, WEBHOOK_SECRET, Stack, wait_until

PROCESSES = ("web", "search", "bulk", "callbacks", "beat")
REDIS_PASSWORD = "correct-horse-battery"
DATABASE_PASSWORD = "staple-of-the-database"
INDEX_TOKEN = "root:staple-of-the-index"
URL_TOKEN = "staple-of-the-callback"
SQL_VALUE = "staple-of-the-statement"
UNKNOWN_KEY = f"lk_0123456789ab_{'Zx9-' * 10}Zx9"

REQUEST_ID = "checkout-7/a"
# Celery's farewell is printed past the log, in the handler of the signal.
PRINTED = ("", "worker: Warm shutdown (MainProcess)")


class Logged(NamedTuple):
    """What the stack was asked, and what its processes wrote."""

    texts: dict[str, str]
    secrets: dict[str, str]
    answers: dict[str, requests.Response]
    searched: dict[str, Any]
    key_id: str

    def lines(self, process: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.texts[process].splitlines() if line not in PRINTED]


@pytest.fixture(scope="module")
def guarded_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("requirepass", REDIS_PASSWORD)
        server.url = server.url.replace("redis://", f"redis://:{REDIS_PASSWORD}@")
        yield server


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, guarded_redis: RedisProcess) -> Logged:
    folder = tmp_path_factory.mktemp("logs")
    database = folder / "lookalike.sqlite3"
    environment = {
        "DATABASE_URL": f"sqlite:///{database}",
        "LOOKALIKE_STORE_URL": str(folder / "store"),
        "LOOKALIKE_ACCESS": "keys",
        "LOOKALIKE_ALLOW_PRIVATE_URLS": "true",
        "LOOKALIKE_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "LOOKALIKE_LOG_FORMAT": "json",
        "LOOKALIKE_INDEX_TOKEN": INDEX_TOKEN,
    }
    made = printed("-m", "web.keys", "create", "--name", "admin", "--scope", "admin", **environment)
    (key,) = (line for line in made.splitlines() if line.startswith("lk_"))
    group = ProcessGroup(ROOT, folder / "state", environment=environment, redis_url=guarded_redis.url)
    with group, redis.Redis.from_url(guarded_redis.url) as client:
        answers, searched = drive(Stack(group), key, client, database)
        wait_until(lambda: "Callback of job" in group.log("callbacks").read_text(), 30, "a callback has failed")
    texts = {name: group.log(name).read_text() for name in PROCESSES}
    texts["web without database"] = web_without_database(environment)
    secrets = {
        "Redis password": REDIS_PASSWORD,
        "database password": DATABASE_PASSWORD,
        "webhook secret": WEBHOOK_SECRET.removeprefix("whsec_"),
        "index token": INDEX_TOKEN.partition(":")[2],
        "secret of a key": key.split("_", 2)[2],
        "secret of an unknown key": UNKNOWN_KEY.split("_", 2)[2],
        "token in a callback's URL": URL_TOKEN,
        "value of a SQL statement": SQL_VALUE,
        "bytes of a photo": "PNG",
    }
    return Logged(texts, secrets, answers, searched, key.split("_")[1])


def printed(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=True,
    )
    return done.stdout


def drive(
    stack: Stack, key: str, client: redis.Redis, database: Path
) -> tuple[dict[str, requests.Response], dict[str, Any]]:
    """Let everything fail that can fail with a secret at hand; returns answers by name, and a job of a search."""
    allowed = {"Authorization": f"Bearer {key}", "Prefer": "wait=20", "Cache-Control": "no-cache"}
    callback = f"http://127.0.0.1:{free_port()}/hook?token={URL_TOKEN}"
    photo, form = picture("shoe"), {"callback_url": callback}

    def search(image: bytes, **headers: str) -> requests.Response:
        return stack.post("/v1/searches", files={"image": image}, data=form, headers={**allowed, **headers})

    answers = {
        "search": search(photo, **{"X-Request-Id": REQUEST_ID}),
        "strange id": search(photo, **{"X-Request-Id": "a b\tc" + "d" * 200}),
        "broken photo": search(photo[: len(photo) // 2]),
        "unknown key": search(photo, Authorization=f"Bearer {UNKNOWN_KEY}"),
        "import": stack.post("/v1/imports", files={"file": ("a.csv", b"id,image\na,b.png\n")}, headers=allowed),
        "no route": stack.get("/v1/nothing", headers=allowed),
    }
    client.config_set("maxmemory", 1)
    answers["no memory"] = search(picture("hat"))
    client.config_set("maxmemory", 0)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("ALTER TABLE item RENAME TO mislaid")
        answers["no table"] = stack.get(f"/v1/items/{SQL_VALUE}", headers=allowed)
        connection.execute("ALTER TABLE mislaid RENAME TO item")
    client.client_kill_filter(_type="normal", skipme=True)
    answers["after all"] = search(photo)
    return answers, answers["search"].json()


def web_without_database(environment: dict[str, str]) -> str:
    """Return what web logs whose PostgreSQL is away."""
    url = f"postgresql://shop:{DATABASE_PASSWORD}@127.0.0.1:{free_port()}/shop"
    script = """
from web.app import create_app
client = create_app().test_client()
assert client.get("/v1/items").status_code == 503
assert client.get("/readyz").status_code == 503
"""
    return printed("-c", script, **{**environment, "DATABASE_URL": url, "LOOKALIKE_ACCESS": "open"})


def test_what_was_to_fail_has_failed_and_is_in_the_logs(logged: Logged) -> None:
    statuses = {name: answer.status_code for name, answer in logged.answers.items()}
    assert statuses == {
        "search": 200,
        "strange id": 200,
        "broken photo": 200,
        "unknown key": 401,
        "import": 200,
        "no route": 404,
        "no memory": 503,
        "no table": 503,
        "after all": 200,
    }
    assert logged.answers["broken photo"].json()["error"]["code"] == "image_broken"
    assert "command not allowed when used memory" in logged.texts["web"]
    assert "no such table: item" in logged.texts["web"]
    assert "Callback of job" in logged.texts["callbacks"]
    assert "The database failed" in logged.texts["web without database"]


@pytest.mark.parametrize("process", PROCESSES)
def test_each_line_is_a_json_object_with_time_level_logger_and_message(logged: Logged, process: str) -> None:
    lines = logged.lines(process)
    assert lines or process == "beat", "it logged nothing"
    for line in lines:
        assert {"time", "level", "logger", "message"} <= line.keys(), line


def test_gunicorns_own_lines_are_among_them(logged: Logged) -> None:
    assert any("Listening at" in line["message"] for line in logged.lines("web"))


def test_no_secret_and_no_bytes_of_a_photo_stand_in_any_log(logged: Logged) -> None:
    found = {
        (what, process)
        for process, text in logged.texts.items()
        for what, secret in logged.secrets.items()
        if secret in text
    }
    assert not found


def test_each_answer_names_its_request_by_the_id_it_came_with_or_one_of_its_own(logged: Logged) -> None:
    ids = {name: answer.headers["X-Request-Id"] for name, answer in logged.answers.items()}
    assert ids.pop("search") == REQUEST_ID
    assert all(len(request_id) == 32 and int(request_id, 16) for request_id in ids.values()), ids
    assert len(set(ids.values())) == len(ids)


@pytest.mark.parametrize("process", ["web", "search", "callbacks"])
def test_the_lines_about_a_job_carry_its_request_and_its_key_in_every_tier(logged: Logged, process: str) -> None:
    of_job = [line for line in logged.lines(process) if line.get("job_id") == logged.searched["id"]]
    assert of_job
    for line in of_job:
        assert (line["request_id"], line["key_id"]) == (REQUEST_ID, logged.key_id), line


def test_each_request_has_one_line_with_method_route_status_and_time(logged: Logged) -> None:
    lines = [line for line in logged.lines("web") if "route" in line]
    for name, answer in logged.answers.items():
        (line,) = (line for line in lines if line["request_id"] == answer.headers["X-Request-Id"])
        route = "unknown" if name == "no route" else answer.request.path_url
        expected = "/v1/items/<item_id>" if name == "no table" else route
        assert (line["method"], line["route"]) == (answer.request.method, expected)
        assert line["status"] == answer.status_code
        assert 0 < line["duration_ms"] < 60_000
        assert line["level"] == "INFO"
    assert not [line for line in lines if line["route"] == "/readyz"], "machines ask it all the time"
