"""How many jobs may be unfinished, of one client and of all, with a real Redis. No worker runs: jobs stay queued."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from shared.database import connect_database
from shared.errors import Internal
from shared.jobs import UNFINISHED_KEY, Jobs, job_key
from shared.migrations import upgrade
from shared.queues import SEARCH, queue_key
from shared.settings import Settings
from tests.conftest import make_settings
from tests.e2e.pictures import picture
from tests.servers import RedisProcess
from web.api_keys import ApiKeys, Scope
from web.app import create_app
from web.bounds import RETRY_AFTER_MAX_SECONDS

Serve = Callable[..., FlaskClient]
Headers = dict[str, str]
ACCEPT = ["MULTI", "HSET", "EXPIRE", "SET", "ZADD", "LPUSH", "EXEC"]
MARKER = "job-bounds"


@pytest.fixture
def settings(redis_server: RedisProcess, redis_client: Redis, tmp_path: Path) -> Settings:
    return make_settings(redis_server, tmp_path)


@pytest.fixture
def keys(settings: Settings) -> Iterator[ApiKeys]:
    database = connect_database(settings.database_url)
    upgrade(database)
    keys = ApiKeys(database)
    keys.create("admin", [Scope.ADMIN])
    yield keys
    database.dispose()


@pytest.fixture
def serve(settings: Settings, keys: ApiKeys) -> Serve:
    """Creates the application with some settings and returns a client of it."""
    return lambda **values: create_app(settings.model_copy(update=values)).test_client()


@pytest.fixture
def jobs(redis_client: Redis, settings: Settings) -> Jobs:
    return Jobs(redis_client, settings)


def holder(keys: ApiKeys) -> Headers:
    return {"Authorization": f"Bearer {keys.create('test', [Scope.SEARCH, Scope.CATALOGUE])[1]}"}


def search(client: FlaskClient, headers: Headers | None = None) -> Any:
    form = {"image": (BytesIO(picture("a")), "a.png")}
    return client.post("/v1/searches", data=form, headers={"Cache-Control": "no-cache", **(headers or {})})


def send_import(client: FlaskClient, headers: Headers | None = None) -> Any:
    form = {"file": (BytesIO(b"id,image\na,https://shop.example/a.png\n"), "a.csv")}
    return client.post("/v1/imports", data=form, headers=headers or {})


def refused(answer: Any, status: int, code: str) -> int:
    """Check that a job was refused, and return the seconds after which to come again."""
    assert (answer.status_code, answer.json["code"]) == (status, code), answer.text
    seconds = int(answer.headers["Retry-After"])
    assert answer.json["retry_after_seconds"] == seconds
    assert f"Come again in {seconds} seconds" in answer.json["detail"]
    return seconds


def unfinished(redis_client: Redis) -> dict[bytes, bytes]:
    counts: dict[bytes, bytes] = redis_client.hgetall(UNFINISHED_KEY)  # type: ignore[assignment]
    return counts


def test_one_client_never_fills_the_queue(serve: Serve, keys: ApiKeys, redis_client: Redis) -> None:
    client, noisy, quiet = serve(access="keys", client_max_unfinished_searches=2), holder(keys), holder(keys)
    accepted = [search(client, noisy) for _ in range(2)]
    assert {answer.status_code for answer in accepted} == {202}
    for _ in range(3):
        assert refused(search(client, noisy), 429, "too_many_jobs") == 1
    assert redis_client.llen(queue_key(SEARCH)) == 2
    assert search(client, quiet).status_code == 202
    assert send_import(client, noisy).status_code == 202, "another queue"
    cancelled = client.delete(accepted[0].headers["Location"], headers=noisy)
    assert cancelled.status_code == 200
    assert search(client, noisy).status_code == 202
    refused(search(client, noisy), 429, "too_many_jobs")


def test_addresses_count_where_there_are_no_keys(serve: Serve) -> None:
    client = serve(access="open", web_bind="0.0.0.0:8000", client_max_unfinished_bulk_jobs=1)
    client.environ_base["REMOTE_ADDR"] = "192.0.2.1"
    assert send_import(client).status_code == 202
    refused(send_import(client), 429, "too_many_jobs")
    client.environ_base["REMOTE_ADDR"] = "192.0.2.2"
    assert send_import(client).status_code == 202


def test_a_full_search_queue_takes_no_more_until_a_worker_has_taken_something(
    serve: Serve, redis_client: Redis
) -> None:
    client = serve(search_queue_max_messages=2)
    assert [search(client).status_code for _ in range(2)] == [202, 202]
    for _ in range(2):
        refused(search(client), 503, "queue_full")
    assert redis_client.llen(queue_key(SEARCH)) == 2
    redis_client.rpop(queue_key(SEARCH))
    assert search(client).status_code == 202
    refused(search(client), 503, "queue_full")


def test_a_full_bulk_queue_takes_no_more_until_a_job_has_ended_and_keeps_no_upload(
    serve: Serve, settings: Settings, jobs: Jobs
) -> None:
    client = serve(bulk_max_unfinished_jobs=2)
    ids = [send_import(client).json["id"] for _ in range(2)]
    refused(send_import(client), 503, "queue_full")
    refused(client.post("/v1/searches/batch", json={"item_ids": ["a"]}), 503, "queue_full")
    lines: dict[str, Any] = {"data": b'{"item_id": "a"}\n', "content_type": "application/x-ndjson"}
    refused(client.post("/v1/searches/batch", **lines), 503, "queue_full")
    assert len(list(Path(settings.store_url).glob("uploads/*"))) == 2, "those of the jobs that were accepted"
    assert search(client).status_code == 202, "another queue"
    assert jobs.start(ids[0]) is not None
    refused(send_import(client), 503, "queue_full")
    assert jobs.fail(ids[0], Internal("It broke."))
    assert send_import(client).status_code == 202


def test_what_another_process_has_sent_counts(serve: Serve) -> None:
    one, other = serve(search_queue_max_messages=2), serve(search_queue_max_messages=2)
    assert [search(one).status_code for _ in range(2)] == [202, 202]
    assert search(other).status_code == 202, "it can't know yet"
    refused(search(other), 503, "queue_full")


def test_a_refused_request_may_use_its_idempotency_key_again(serve: Serve, redis_client: Redis) -> None:
    client, key = serve(search_queue_max_messages=1), {"Idempotency-Key": "once"}
    assert search(client).status_code == 202
    refused(search(client, key), 503, "queue_full")
    redis_client.delete(queue_key(SEARCH))
    answer = search(client, key)
    assert (answer.status_code, "Idempotent-Replayed" in answer.headers) == (202, False)


@pytest.mark.parametrize(
    ("waited_seconds", "expected"), [(0, 1), (300, 30), (7200, RETRY_AFTER_MAX_SECONDS)], ids=["new", "slow", "stuck"]
)
def test_the_time_to_come_again_follows_from_how_long_the_oldest_message_waits(
    serve: Serve, redis_client: Redis, waited_seconds: int, expected: int
) -> None:
    client = serve(search_queue_max_messages=2)
    oldest = search(client).json["id"]
    search(client)
    created_at = datetime.now(UTC) - timedelta(seconds=waited_seconds)
    redis_client.hset(job_key(oldest), "created_at", created_at.isoformat())
    assert refused(search(client), 503, "queue_full") == expected


def test_a_message_that_is_no_job_s_is_no_reason_to_fail(serve: Serve, redis_client: Redis) -> None:
    client = serve(search_queue_max_messages=1)
    search(client)
    redis_client.rpush(queue_key(SEARCH), b"nonsense")
    assert refused(search(client), 503, "queue_full") == 1


def test_0_switches_a_bound_off(serve: Serve, keys: ApiKeys, redis_client: Redis) -> None:
    names = ("client_max_unfinished_searches", "client_max_unfinished_bulk_jobs")
    client = serve(access="keys", search_queue_max_messages=0, bulk_max_unfinished_jobs=0, **dict.fromkeys(names, 0))
    mine = holder(keys)
    assert {search(client, mine).status_code for _ in range(5)} == {202}
    assert {send_import(client, mine).status_code for _ in range(5)} == {202}
    assert unfinished(redis_client) == {}


def test_a_job_counts_until_it_has_ended_and_once(serve: Serve, keys: ApiKeys, jobs: Jobs, redis_client: Redis) -> None:
    client, mine = serve(access="keys"), holder(keys)
    ids = [search(client, mine).json["id"], send_import(client, mine).json["id"]]
    names = [name.decode() for name in unfinished(redis_client)]
    assert sorted(name.partition(":key:")[0] for name in names) == ["bulk", "bulk", "search"]
    assert set(unfinished(redis_client).values()) == {b"1"}
    for job_id in ids:
        jobs.start(job_id)
        assert jobs.succeed(job_id, {})
        assert not jobs.fail(job_id, Internal("It ended before."))
    assert unfinished(redis_client) == {}


def test_counts_that_went_wrong_are_counted_anew(serve: Serve, jobs: Jobs, redis_client: Redis) -> None:
    client = serve(bulk_max_unfinished_jobs=2)
    send_import(client)
    redis_client.hset(UNFINISHED_KEY, mapping={"bulk": 900, "search:key:gone": 7})
    jobs.recount_unfinished()
    assert unfinished(redis_client) == {b"bulk": b"1"}
    redis_client.delete(*redis_client.keys("lookalike:job*"))
    jobs.recount_unfinished()
    assert unfinished(redis_client) == {}


def commands_of(redis_client: Redis, act: Callable[[], Any]) -> list[str]:
    """Return the names of the commands that Redis gets while something is done."""
    with redis_client.monitor() as monitor:
        act()
        redis_client.echo(MARKER)
        names: list[str] = []
        for entry in monitor.listen():
            if MARKER in entry["command"]:
                return names
            if entry["client_type"] != "lua" and not entry["command"].startswith(("PING", "CLIENT", "HELLO")):
                names.append(entry["command"].partition(" ")[0])
    raise AssertionError("MONITOR ended")


def test_what_limits_cost_redis_is_one_call_and_one_count_and_nothing_where_there_are_none(
    serve: Serve, keys: ApiKeys, redis_client: Redis
) -> None:
    client, mine = serve(access="keys"), holder(keys)
    search(client, mine)  # connections and the script: what comes once
    limited = commands_of(redis_client, lambda: search(client, mine))
    assert limited == ["EVALSHA", *ACCEPT[:-2], "HINCRBY", *ACCEPT[-2:]]
    assert commands_of(redis_client, lambda: client.get("/v1/items", headers=mine)) == ["EVALSHA"]
    trusted = serve()
    search(trusted)
    assert commands_of(redis_client, lambda: search(trusted)) == ACCEPT
