"""What browsers are told with each answer: what a page may do, and which other pages may ask."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from shared.catalogue import Catalogue
from shared.catalogue_change import ImageRef, ItemChange
from shared.database import connect_database
from shared.migrations import upgrade
from shared.store import Store
from tests.conftest import make_settings
from tests.e2e.pictures import picture
from tests.servers import RedisProcess
from web.api_keys import ApiKeys, Scope
from web.app import create_app
from web.security_headers import HEADERS, OTHER_POLICY, PAGE_POLICY

Serve = Callable[..., FlaskClient]
SHOP, STRANGER = "https://shop.example", "https://stranger.example"
PAGES = ("/", "/docs/swagger", "/docs/")
INLINE = re.compile(r"<script(?![^>]*\ssrc=)|<style|\s(?:style|on\w+)=", re.IGNORECASE)
PHOTO = hashlib.sha256(picture("a")).hexdigest()


@pytest.fixture
def serve(redis_server: RedisProcess, redis_client: Redis, tmp_path: Path) -> Serve:
    """Creates the application, which asks for keys, with some settings, and returns a client of it."""
    plain = make_settings(redis_server, tmp_path, access="keys")
    database = connect_database(plain.database_url)
    upgrade(database)
    ApiKeys(database).create("admin", [Scope.ADMIN])
    with Catalogue(database).change() as change:
        change.put([ItemChange("a", "A", {}, [ImageRef(PHOTO, "image/png")])])
    database.dispose()
    Store(plain.store_url).put_images([picture("a")])
    return lambda **values: create_app(plain.model_copy(update=values)).test_client()


def preflight(client: FlaskClient, origin: str, path: str = "/v1/searches") -> Any:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    return client.options(path, headers={"Origin": origin, **asked})


def shared_with(answer: Any) -> str | None:
    origin: str | None = answer.headers.get("Access-Control-Allow-Origin")
    return origin


# What a page may do


@pytest.mark.parametrize("path", [*PAGES, "/openapi.json", "/healthz", "/nowhere", "/static/main.js", "/v1/items"])
def test_every_answer_has_the_headers(serve: Serve, path: str) -> None:
    answer = serve().get(path)
    assert {name: answer.headers.getlist(name) for name in HEADERS} == {n: [v] for n, v in HEADERS.items()}
    assert answer.headers.getlist("Content-Security-Policy") == [PAGE_POLICY if path in PAGES else OTHER_POLICY]
    answer.close()


@pytest.mark.parametrize("path", PAGES)
def test_no_page_needs_what_its_policy_forbids(serve: Serve, path: str) -> None:
    answer = serve().get(path)
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    assert not INLINE.findall(answer.text)
    assert "unsafe" not in PAGE_POLICY
    assert re.findall(r"(?:src|href)=\"(?:https?:)?//", answer.text) == []


def test_other_sites_may_show_images_of_items_and_nothing_else(serve: Serve) -> None:
    client = serve()
    image = client.get(f"/v1/items/a/image?v={PHOTO[:12]}")
    assert (image.status_code, image.headers["Cross-Origin-Resource-Policy"]) == (200, "cross-origin")
    assert image.headers.getlist("X-Content-Type-Options") == ["nosniff"]
    assert client.get("/v1/items").headers["Cross-Origin-Resource-Policy"] == "same-origin"


# Which other pages may ask


def test_no_other_origin_may_ask_unless_it_is_named(serve: Serve) -> None:
    client = serve()
    assert shared_with(preflight(client, SHOP)) is None
    answer = client.get("/v1/items", headers={"Origin": SHOP})
    assert (shared_with(answer), "Vary" in answer.headers) == (None, False)


def test_a_named_origin_may_ask_and_read_refusals_too(serve: Serve) -> None:
    client = serve(allowed_origins=f"{SHOP}, http://localhost:3000")
    for origin in (SHOP, "http://localhost:3000"):
        answer = preflight(client, origin)
        assert (answer.status_code, shared_with(answer)) == (204, origin), "without a key"
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        assert int(answer.headers["Access-Control-Max-Age"]) > 0
        assert "Origin" in answer.headers["Vary"]
        refused = client.get("/v1/items", headers={"Origin": origin})
        assert (refused.status_code, shared_with(refused)) == (401, origin)
        assert "Retry-After" in refused.headers["Access-Control-Expose-Headers"]
        for each in (answer, refused):
            assert "Access-Control-Allow-Credentials" not in each.headers


@pytest.mark.parametrize("origin", [STRANGER, "null", SHOP + ".evil.example", SHOP.upper(), SHOP + ":444", "*"])
def test_any_other_origin_is_not_answered_and_no_cache_mixes_them_up(serve: Serve, origin: str) -> None:
    client = serve(allowed_origins=SHOP)
    answer = preflight(client, origin)
    assert (answer.status_code, shared_with(answer)) == (401, None)
    for headers in ({"Origin": origin}, {}):
        answer = client.get("/v1/items", headers=headers)
        assert (shared_with(answer), answer.headers["Vary"]) == (None, "Origin")


def test_pages_and_what_operators_ask_are_not_shared(serve: Serve) -> None:
    client = serve(allowed_origins=SHOP)
    for path in ("/", "/healthz", "/metrics", "/openapi.json"):
        assert shared_with(client.get(path, headers={"Origin": SHOP})) is None
        assert shared_with(preflight(client, SHOP, path)) is None
