"""How many requests a client may send, with a real Redis and the real application. No worker runs: jobs stay queued."""

import re
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from shared.database import connect_database
from shared.migrations import upgrade
from tests.conftest import make_settings
from tests.e2e.pictures import picture
from tests.servers import RedisProcess, running_redis
from tests.stack import wait_until
from web.api_keys import ApiKeys, Scope
from web.app import create_app
from web.errors import PROBLEM_TYPE
from web.rate_limits import KINDS, WINDOW_SECONDS, Kind

Serve = Callable[..., FlaskClient]
Headers = dict[str, str]
LIMITS = {
    "client_max_searches_per_minute": 3,
    "client_max_bulk_jobs_per_minute": 2,
    "client_max_requests_per_minute": 4,
}
TO_A_NETWORK: dict[str, object] = {"access": "open", "web_bind": "0.0.0.0:8000"}


@pytest.fixture
def keys(redis_server: RedisProcess, tmp_path: Path) -> Iterator[ApiKeys]:
    database = connect_database(make_settings(redis_server, tmp_path).database_url)
    upgrade(database)
    keys = ApiKeys(database)
    keys.create("admin", [Scope.ADMIN])
    yield keys
    database.dispose()


@pytest.fixture
def serve(redis_server: RedisProcess, redis_client: Redis, keys: ApiKeys, tmp_path: Path) -> Serve:
    """Creates the application with some settings and returns a client of it."""

    def create(**values: object) -> FlaskClient:
        return create_app(make_settings(redis_server, tmp_path, **{**LIMITS, **values})).test_client()

    return create


def holder(keys: ApiKeys, *scopes: Scope) -> Headers:
    return {"Authorization": f"Bearer {keys.create('test', scopes or (Scope.SEARCH,))[1]}"}


def search(client: FlaskClient, headers: Headers | None = None, **options: Any) -> Any:
    form = {"image": (BytesIO(picture("a")), "a.png")}
    return client.post("/v1/searches", data=form, headers=headers or {}, **options)


def listed(client: FlaskClient, address: str, **headers: str) -> int:
    """Read items from an address, and return the status."""
    return client.get("/v1/items", environ_base={"REMOTE_ADDR": address}, headers=headers).status_code


def test_what_is_too_much_is_refused_and_says_which_limit_and_when_to_come_again(serve: Serve, keys: ApiKeys) -> None:
    client, mine = serve(access="keys"), holder(keys)
    for remaining in (2, 1, 0):
        answer = search(client, mine)
        assert answer.status_code == 202
        assert answer.headers["RateLimit-Policy"] == f'"searches";q=3;w={WINDOW_SECONDS}'
        assert re.fullmatch(rf'"searches";r={remaining};t=([1-9]|[1-5][0-9]|60)', answer.headers["RateLimit"])
    refused = search(client, mine)
    problem = refused.json
    assert (refused.status_code, refused.content_type, problem["code"]) == (429, PROBLEM_TYPE, "rate_limited")
    assert 1 <= problem["retry_after_seconds"] <= WINDOW_SECONDS
    assert refused.headers["Retry-After"] == str(problem["retry_after_seconds"])
    assert refused.headers["RateLimit"] == f'"searches";r=0;t={problem["retry_after_seconds"]}'
    assert (problem["limit"], problem["limit_per_minute"]) == ("searches", 3)
    assert "3 searches in 60 seconds" in problem["detail"]


def test_one_key_never_uses_up_what_another_may_send(serve: Serve, keys: ApiKeys) -> None:
    client, noisy = serve(access="keys"), holder(keys)
    assert [search(client, noisy).status_code for _ in range(9)] == [202] * 3 + [429] * 6
    assert search(client, holder(keys)).status_code == 202


def test_kinds_of_work_are_counted_apart(serve: Serve, keys: ApiKeys) -> None:
    client, mine = serve(access="keys"), holder(keys, Scope.SEARCH, Scope.CATALOGUE)
    batch: dict[str, Any] = {"json": {"all_items": True}, "headers": mine}
    assert [client.post("/v1/searches/batch", **batch).status_code for _ in range(3)] == [202, 202, 429]
    assert client.post("/v1/imports", data={}, headers=mine).status_code == 429, "imports count as batches do"
    assert [client.get("/v1/items", headers=mine).status_code for _ in range(5)] == [200] * 4 + [429]
    assert client.put("/v1/items/a", json={"title": "A"}, headers=mine).status_code == 429
    assert search(client, mine).status_code == 202


def test_a_new_minute_begins_with_all_of_it(serve: Serve, keys: ApiKeys, redis_client: Redis) -> None:
    client, mine = serve(access="keys"), holder(keys)
    assert [search(client, mine).status_code for _ in range(4)][-1] == 429
    (window,) = redis_client.keys("lookalike:rate:searches:*")
    assert 0 < redis_client.pttl(window) <= WINDOW_SECONDS * 1000
    redis_client.pexpire(window, 1)
    wait_until(lambda: not redis_client.exists(window), 5, "the window ends")
    assert search(client, mine).status_code == 202


def test_where_there_is_no_key_the_address_counts(serve: Serve) -> None:
    client = serve(**TO_A_NETWORK)
    assert [listed(client, "192.0.2.1") for _ in range(5)] == [200] * 4 + [429]
    assert listed(client, "192.0.2.2") == 200
    assert listed(client, "::ffff:192.0.2.1") == 429, "the same address"
    addresses = [f"2001:db8:0:1::{number}" for number in range(1, 6)]
    assert [listed(client, address) for address in addresses] == [200] * 4 + [429], "one network of IPv6"
    assert listed(client, "2001:db8:0:2::1") == 200


def test_an_image_that_is_asked_for_without_a_key_counts_for_the_address(serve: Serve) -> None:
    client = serve(access="keys")
    statuses = [client.get("/v1/items/a/image?v=000000000000").status_code for _ in range(5)]
    assert statuses == [401] * 4 + [429]


def test_who_has_no_key_or_a_wrong_one_counts_for_the_address(serve: Serve, keys: ApiKeys) -> None:
    client, wrong = serve(access="keys"), {"Authorization": "Bearer lk_000000000000_" + "a" * 43}
    statuses = [client.get("/v1/items", headers=headers).status_code for headers in ({}, wrong, {}, wrong, wrong)]
    assert statuses == [401] * 4 + [429]
    assert client.get("/v1/items", headers=holder(keys)).status_code == 200


def test_the_address_is_what_the_trusted_proxies_say_and_nobody_else(serve: Serve) -> None:
    client = serve(trusted_proxies=1, access="open")
    spoofed = [listed(client, "127.0.0.1", **{"X-Forwarded-For": f"10.0.0.{n}, 192.0.2.1"}) for n in range(5)]
    assert spoofed == [200] * 4 + [429], "what the client itself says changes nothing"
    assert listed(client, "127.0.0.1", **{"X-Forwarded-For": "192.0.2.2"}) == 200
    client = serve(trusted_proxies=0, **TO_A_NETWORK)
    assert [listed(client, "192.0.2.9", **{"X-Forwarded-For": f"10.0.0.{n}"}) for n in range(5)][-1] == 429


def test_what_a_proxy_says_that_is_no_address_is_one_client(serve: Serve, redis_client: Redis) -> None:
    client = serve(trusted_proxies=1, access="open")
    odd = ["unknown", "a b", "<script>", "192.0.2.1:99", "\x80"]
    assert [listed(client, "127.0.0.1", **{"X-Forwarded-For": text}) for text in odd] == [200] * 4 + [429]
    assert redis_client.keys("lookalike:rate:*") == [b"lookalike:rate:requests:address:unknown"]


def test_an_open_server_of_this_machine_limits_nobody(serve: Serve, redis_client: Redis) -> None:
    client = serve()
    answers = [search(client) for _ in range(9)]
    assert {answer.status_code for answer in answers} == {202}
    assert "RateLimit" not in answers[-1].headers
    assert redis_client.keys("lookalike:rate:*") == []


def test_0_switches_a_limit_off(serve: Serve, keys: ApiKeys) -> None:
    client, mine = serve(access="keys", client_max_searches_per_minute=0), holder(keys)
    answers = [search(client, mine) for _ in range(9)]
    assert {answer.status_code for answer in answers} == {202}
    assert "RateLimit" not in answers[-1].headers
    assert [client.get("/v1/items", headers=mine).status_code for _ in range(5)][-1] == 429


def test_health_checks_pages_and_files_are_not_counted(serve: Serve, redis_client: Redis) -> None:
    client = serve(**TO_A_NETWORK)
    for path in ("/healthz", "/readyz", "/", "/docs/swagger", "/openapi.json", "/static/main.js", "/nowhere"):
        for _ in range(6):
            answer = client.get(path)
            assert (answer.status_code, "RateLimit" in answer.headers) == (404 if path == "/nowhere" else 200, False)
            answer.close()
    assert redis_client.keys("lookalike:rate:*") == []


def test_all_web_processes_count_together(serve: Serve, keys: ApiKeys) -> None:
    processes, mine = [serve(access="keys"), serve(access="keys")], holder(keys)
    assert [search(processes[number % 2], mine).status_code for number in range(4)] == [202] * 3 + [429]


def test_while_redis_is_away_what_needs_it_says_so_and_all_else_goes_on(keys: ApiKeys, tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    with running_redis(folder) as redis:
        client = create_app(make_settings(redis, tmp_path, access="keys", **LIMITS)).test_client()
        mine = holder(keys)
        assert client.get("/v1/items", headers=mine).status_code == 200
        redis.kill()
        for _ in range(9):
            assert client.get("/v1/items", headers=mine).status_code == 200
        refused = search(client, mine)
        assert (refused.status_code, refused.json["code"]) == (503, "redis_unavailable")
        redis.start()
        wait_until(lambda: search(client, mine).status_code == 429, 20, "it counts again")


def test_every_route_that_is_named_exists(serve: Serve) -> None:
    rules = serve().application.url_map.iter_rules()
    existing = {(method, rule.rule) for rule in rules for method in rule.methods or ()}
    assert set(KINDS) <= existing
    assert set(KINDS.values()) == {Kind.SEARCHES, Kind.BULK_JOBS}
