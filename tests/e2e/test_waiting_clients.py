"""200 clients that wait on one gunicorn worker: what they cost, and what others notice.

The web process runs as the Procfile has it; the test itself ends the jobs, as workers would.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from redis import Redis
from sqlalchemy import text

from demo.processes import ProcessGroup
from shared.database import connect_database
from shared.job_record import json_bytes
from shared.jobs import Jobs
from shared.result_cache import ResultCache
from tests.conftest import make_settings
from tests.e2e.pictures import picture
from tests.servers import RedisProcess
from tests.stack import ROOT, Stack, wait_until

CLIENTS = 200
WEB_THREADS = 272  # the default, of which three quarters may wait
CONNECTIONS = 20
OBSERVED_SECONDS = 2
PROMPT_SECONDS = 1.0  # on a machine that does other things as well
MEMORY_MEBIBYTES = 300
RELEASE = "encoder.flat"


def result(release: str) -> dict[str, Any]:
    return {
        "hits": [],
        "release": release,
        "catalogue_version": 0,
        "answered_from": "engine",
        "reason": "catalogue_empty",
        "timings_ms": {"total": 1.0},
    }


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, own_redis: RedisProcess) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("web")
    database_url = f"sqlite:///{folder}/lookalike.sqlite3"
    environment = {
        "DATABASE_URL": database_url,
        "LOOKALIKE_STORE_URL": str(folder / "store"),
        "LOOKALIKE_WEB_THREADS": str(WEB_THREADS),
    }
    options: dict[str, Any] = {"environment": environment, "processes": ["web"], "redis_url": own_redis.url}
    with ProcessGroup(ROOT, folder / "state", **options) as group:
        engine = connect_database(database_url)
        with engine.begin() as connection:
            connection.execute(text("UPDATE catalogue_state SET release_id = :release"), {"release": RELEASE})
        engine.dispose()
        yield Stack(group)


@pytest.fixture
def jobs(own_redis_client: Redis, own_redis: RedisProcess, tmp_path: Path) -> Jobs:
    own_redis_client.flushall()
    return Jobs(own_redis_client, make_settings(own_redis, tmp_path))


def calls(own_redis_client: Redis) -> dict[str, int]:
    """Return how often each command came since the last time, without those of the tests."""
    found = {
        name.removeprefix("cmdstat_"): stats["calls"] for name, stats in own_redis_client.info("commandstats").items()
    }
    own_redis_client.config_resetstat()
    return {name: count for name, count in found.items() if not name.startswith(("info", "config", "zcard", "client"))}


def web_connections(own_redis_client: Redis) -> int:
    return len(own_redis_client.client_list()) - 1  # one is the test's


def web_memory_mebibytes(web: Stack) -> float:
    """Return what gunicorn's worker holds in memory."""
    master = web.group.pid("web")
    (worker,) = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    resident_pages = int(Path(f"/proc/{worker}/statm").read_text().split()[1])
    return resident_pages * os.sysconf("SC_PAGE_SIZE") / 1024**2


def test_200_clients_wait_on_one_gunicorn_worker_and_others_are_answered(
    web: Stack, own_redis_client: Redis, jobs: Jobs
) -> None:
    known = picture("known")
    asked = {"k": 10, "min_score": None, "filter": None, "crop": None}
    key = ResultCache.key(RELEASE, 0, f"sha256:{hashlib.sha256(known).hexdigest()}", asked)
    own_redis_client.set(key, json_bytes(result("known")))

    def ask(number: int) -> requests.Response:
        return web.post("/v1/searches", files={"image": picture(str(number))}, headers={"Prefer": "wait=30"})

    with ThreadPoolExecutor(CLIENTS) as pool:
        asking = [pool.submit(ask, number) for number in range(CLIENTS)]
        wait_until(lambda: own_redis_client.zcard("lookalike:jobs:active") == CLIENTS, 25, "all are accepted")
        others: list[float] = []
        calls(own_redis_client)
        observed_until = time.monotonic() + OBSERVED_SECONDS
        while time.monotonic() < observed_until:
            start = time.monotonic()
            assert web.get("/healthz").ok
            others.append(time.monotonic() - start)
        while_waiting = calls(own_redis_client)
        start = time.monotonic()
        answer = web.post("/v1/searches", files={"image": known}, headers={"Prefer": "wait=30"})
        others.append(time.monotonic() - start)
        assert (answer.status_code, answer.json()["result"]["answered_from"]) == (200, "result_cache")
        connections, memory = web_connections(own_redis_client), web_memory_mebibytes(web)
        assert not any(future.done() for future in asking), "all wait"

        calls(own_redis_client)
        job_ids = jobs.active()
        for job_id in job_ids:
            assert jobs.succeed(job_id, result(job_id))
        answers = [future.result() for future in asking]
        at_the_end = calls(own_redis_client)

    assert while_waiting.pop("xread", 0) <= 1, "one connection listens, and asks again after seconds"
    assert while_waiting.pop("ping", 0) <= 1, "a connection that was idle is looked after"
    assert while_waiting == {}, "no waiting client costs a command"
    assert connections < CONNECTIONS
    assert web_connections(own_redis_client) < CONNECTIONS
    assert max(others) < PROMPT_SECONDS
    assert memory < MEMORY_MEBIBYTES
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["Preference-Applied"] for answer in answers} == {"wait=30"}
    bodies = [answer.json() for answer in answers]
    assert {body["id"] for body in bodies} == set(job_ids)
    assert all(body["result"]["release"] == body["id"] for body in bodies), "each gets its own answer"
    assert at_the_end["hgetall"] == CLIENTS, "each record is read once"
    assert at_the_end["xread"] <= CLIENTS


def test_who_asks_for_a_job_that_has_ended_never_waits(web: Stack, jobs: Jobs) -> None:
    job_id = web.post("/v1/searches", files={"image": picture("ended")}).json()["id"]
    jobs.succeed(job_id, result(job_id))
    for _ in range(3):
        answer = web.get(f"/v1/jobs/{job_id}?wait=30")
        assert answer.json()["status"] == "succeeded"
        assert answer.elapsed.total_seconds() < 10


def test_many_who_wait_for_one_job_all_see_its_end(web: Stack, own_redis_client: Redis, jobs: Jobs) -> None:
    job_id = web.post("/v1/searches", files={"image": picture("one")}).json()["id"]
    with ThreadPoolExecutor(50) as pool:
        reading = [pool.submit(web.get, f"/v1/jobs/{job_id}?wait=30") for _ in range(50)]
        wait_until(lambda: calls(own_redis_client).get("hgetall", 0) == 0, 20, "all have seen that it has not ended")
        assert not any(future.done() for future in reading)
        jobs.cancel(job_id)
        assert {future.result().json()["status"] for future in reading} == {"cancelled"}
