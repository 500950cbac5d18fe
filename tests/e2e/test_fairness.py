"""One client never starves another: gunicorn as the Procfile runs it, with no worker, and two keys at once."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from demo.processes import ProcessGroup
from tests.e2e.pictures import picture
from tests.e2e.steps import assert_problem
from tests.stack import ROOT, Stack

SEARCHES_PER_MINUTE = 20
UNFINISHED_BULK_JOBS = 3
NOISY_THREADS = 8
Headers = dict[str, str]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('fairness')}/lookalike.sqlite3"


@pytest.fixture(scope="module")
def admin(database: str) -> str:
    return new_key(database, "admin", "admin")


@pytest.fixture(scope="module")
def web(database: str, admin: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("web")
    environment = {
        "DATABASE_URL": database,
        "LOOKALIKE_STORE_URL": str(folder / "store"),
        "LOOKALIKE_ACCESS": "keys",
        "LOOKALIKE_CLIENT_MAX_SEARCHES_PER_MINUTE": str(SEARCHES_PER_MINUTE),
        "LOOKALIKE_CLIENT_MAX_UNFINISHED_BULK_JOBS": str(UNFINISHED_BULK_JOBS),
        "LOOKALIKE_ALLOWED_ORIGINS": "https://shop.example",
    }
    with ProcessGroup(ROOT, folder / "state", environment=environment, processes=["web"]) as group:
        yield Stack(group)


def new_key(database: str, name: str, *scopes: str) -> str:
    command = [sys.executable, "-m", "web.keys", "create", "--name", name]
    for scope in scopes:
        command += ["--scope", scope]
    environment = {**os.environ, "DATABASE_URL": database}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def bearer(database: str, name: str) -> Headers:
    return {"Authorization": f"Bearer {new_key(database, name, 'search', 'catalogue')}"}


def search(web: Stack, headers: Headers, name: str) -> requests.Response:
    return web.post("/v1/searches", files={"image": picture(name)}, headers=headers)


def test_a_noisy_client_is_told_to_come_again_while_another_is_served(web: Stack, database: str) -> None:
    noisy, quiet = bearer(database, "noisy"), bearer(database, "quiet")
    with ThreadPoolExecutor(NOISY_THREADS) as pool:
        sent = [pool.submit(search, web, noisy, f"noisy-{number}") for number in range(3 * SEARCHES_PER_MINUTE)]
        served = [search(web, quiet, f"quiet-{number}") for number in range(SEARCHES_PER_MINUTE)]
        answers = [each.result() for each in sent]
    assert [answer.status_code for answer in served] == [202] * SEARCHES_PER_MINUTE
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses == {202: SEARCHES_PER_MINUTE, 429: 2 * SEARCHES_PER_MINUTE}
    refused = next(answer for answer in answers if answer.status_code == 429)
    problem = assert_problem(refused, 429, "rate_limited")
    assert refused.headers["Retry-After"] == str(problem["retry_after_seconds"])
    assert refused.headers["RateLimit-Policy"] == f'"searches";q={SEARCHES_PER_MINUTE};w=60'
    assert f"r=0;t={problem['retry_after_seconds']}" in refused.headers["RateLimit"]


def test_one_client_s_imports_leave_room_for_another_s(web: Stack, database: str) -> None:
    noisy, quiet = bearer(database, "noisy"), bearer(database, "quiet")
    table = {"file": ("a.csv", b"id,image\na,https://shop.example/a.png\n")}
    answers = [web.post("/v1/imports", files=table, headers=noisy) for _ in range(2 * UNFINISHED_BULK_JOBS)]
    assert [answer.status_code for answer in answers] == [202] * UNFINISHED_BULK_JOBS + [429] * UNFINISHED_BULK_JOBS
    assert_problem(answers[-1], 429, "too_many_jobs")
    assert web.post("/v1/imports", files=table, headers=quiet).status_code == 202


def test_a_page_of_a_named_origin_may_ask(web: Stack) -> None:
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    answer = requests.options(f"{web.base_url}/v1/searches", headers=asked, timeout=10)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (204, "https://shop.example")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
