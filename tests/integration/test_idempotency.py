"""A POST that is sent again with the same idempotency key makes no second job. No worker runs: jobs stay queued."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine

from shared.database import connect_database
from shared.jobs import ACTIVE_KEY, job_key
from shared.migrations import upgrade
from shared.settings import Settings
from tests.e2e.pictures import picture
from web.app import create_app
from web.idempotency import CREATION_SECONDS
from web.idempotency_keys import KEPT_SECONDS, PREFIX

Client = Any  # Flask's; to it, a body that may not be JSON has no members

KEY = {"Idempotency-Key": "3f0e1d0a-order-17"}
CSV = b"id,image\na,a.png\n"


@pytest.fixture
def settings(settings: Settings, redis_client: Redis) -> Settings:
    engine: Engine = connect_database(settings.database_url)
    upgrade(engine)
    engine.dispose()
    return settings


@pytest.fixture
def client(settings: Settings) -> Client:
    return create_app(settings).test_client()


def search(client: Client, name: str = "a", headers: dict[str, str] | None = None, **fields: Any) -> Any:
    form = {"image": (BytesIO(picture(name)), f"{name}.png"), **fields}
    return client.post("/v1/searches", data=form, headers=KEY if headers is None else headers)


def upload(client: Client, body: bytes = CSV, **fields: Any) -> Any:
    return client.post("/v1/imports", data={"file": (BytesIO(body), "a.csv"), **fields}, headers=KEY)


def uploads_in(settings: Settings) -> list[Path]:
    return list(Path(settings.store_url).glob("uploads/*"))


def refused(answer: Any, status: int, code: str) -> None:
    assert (answer.status_code, answer.json["code"]) == (status, code), answer.text


def test_the_same_request_gets_the_same_job(client: Client, redis_client: Redis) -> None:
    first, again = search(client), search(client)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json == first.json
    assert again.headers["Location"] == first.headers["Location"]
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert redis_client.zcard(ACTIVE_KEY) == 1
    assert redis_client.llen("lookalike:queue:search") == 1
    (name,) = redis_client.keys(f"{PREFIX}*")
    assert KEPT_SECONDS - 60 < redis_client.ttl(name) <= KEPT_SECONDS
    assert KEY["Idempotency-Key"].encode() not in name


def test_without_a_key_each_request_makes_a_job(client: Client, redis_client: Redis) -> None:
    assert search(client, headers={}).json["id"] != search(client, headers={}).json["id"]
    assert redis_client.keys(f"{PREFIX}*") == []


@pytest.mark.parametrize("other", [{"name": "b"}, {"k": "3"}, {"filter": '{"colour": "red"}'}])
def test_another_request_with_the_key_is_refused(client: Client, other: dict[str, Any], settings: Settings) -> None:
    from shared.catalogue import Catalogue
    from shared.catalogue_change import ItemChange

    engine = connect_database(settings.database_url)
    with Catalogue(engine).change() as change:
        change.put([ItemChange("a", "", {"colour": "red"}, [])])
    engine.dispose()
    search(client)
    refused(search(client, **other), 422, "idempotency_key_reused")
    refused(upload(client), 422, "idempotency_key_reused")


def test_an_upload_is_known_by_its_content_and_kept_once(client: Client, settings: Settings) -> None:
    first, again = upload(client), upload(client)  # each with a boundary of its own
    assert again.json["id"] == first.json["id"]
    assert len(uploads_in(settings)) == 1
    (kept,) = uploads_in(settings)[0].iterdir()
    assert kept.read_bytes() == CSV
    refused(upload(client, CSV + b"b,b.png\n"), 422, "idempotency_key_reused")
    refused(upload(client, mode="replace"), 422, "idempotency_key_reused")
    assert len(uploads_in(settings)) == 1


def test_a_request_that_was_refused_may_be_mended(client: Client) -> None:
    refused(search(client, k="0"), 422, "invalid_parameter")
    assert search(client, k="1").status_code == 202


@pytest.mark.parametrize("key", ["", "two words", "ü", "x" * 256])
def test_what_is_no_key_is_told(client: Client, key: str) -> None:
    refused(search(client, headers={"Idempotency-Key": key}), 422, "invalid_parameter")


def test_of_many_at_once_one_makes_the_job(settings: Settings, redis_client: Redis) -> None:
    app = create_app(settings)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: search(app.test_client()), range(24)))
    made = {answer.json["id"] for answer in answers if answer.status_code == 202}
    for answer in answers:
        if answer.status_code != 202:
            refused(answer, 409, "idempotency_key_in_use")
    assert len(made) == 1
    assert redis_client.zcard(ACTIVE_KEY) == 1
    assert search(app.test_client()).json["id"] in made


def test_a_key_whose_request_died_on_the_way_is_free_after_a_while(client: Client, redis_client: Redis) -> None:
    dead = search(client).json["id"]
    (name,) = redis_client.keys(f"{PREFIX}*")
    redis_client.delete(job_key(dead))
    refused(search(client), 409, "idempotency_key_in_use")
    fingerprint, _, _ = json.loads(redis_client.get(name) or "")
    redis_client.set(name, json.dumps([fingerprint, dead, time.time() - CREATION_SECONDS - 1]))
    second = search(client)
    assert second.status_code == 202
    assert "Idempotent-Replayed" not in second.headers
    assert search(client).json["id"] == second.json["id"] != dead


def test_a_finished_job_is_answered_as_it_ended(client: Client) -> None:
    job_id = search(client).json["id"]
    client.delete(f"/v1/jobs/{job_id}")
    again = search(client)
    assert (again.status_code, again.json["status"]) == (200, "cancelled")


def test_releases_take_a_key_too(client: Client) -> None:
    first = client.post("/v1/releases", json={"recall_target": 0.9}, headers=KEY)
    again = client.post("/v1/releases", json={"recall_target": 0.9, "activate": False}, headers=KEY)
    assert again.json["id"] == first.json["id"]
    refused(client.post("/v1/releases", json={"recall_target": 0.8}, headers=KEY), 422, "idempotency_key_reused")
