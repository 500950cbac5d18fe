"""A server that asks for keys, with all its processes: the command that makes them, the client, the page."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import expect

from tests.conftest import Launcher
from tests.e2e.pictures import picture
from tests.stack import Stack, running_stack


def command(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('keys')}/lookalike.sqlite3"


@pytest.fixture(scope="module")
def admin(database: str) -> str:
    """An admin's key, made before anything has started."""
    return command("web.keys", "create", "--name", "admin", "--scope", "admin", DATABASE_URL=database)


@pytest.fixture(scope="module")
def guarded(database: str, admin: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("guarded")
    with running_stack(folder, {"DATABASE_URL": database, "LOOKALIKE_ACCESS": "keys"}) as stack:
        form = {"item": (None, json.dumps({"title": "Red"})), "image": picture("red")}
        headers = {"Authorization": f"Bearer {admin}", "Prefer": "wait=30"}
        written = stack.put("/v1/items/red", files=form, headers=headers)
        assert written.json()["status"] == "succeeded", written.text
        yield stack


def test_the_client_searches_with_a_key_and_is_told_without(guarded: Stack, admin: str, tmp_path: Path) -> None:
    asked = {"name": "storefront", "scopes": ["search"]}
    made = guarded.post("/v1/keys", json=asked, headers={"Authorization": f"Bearer {admin}"}).json()
    photo = tmp_path / "photo.png"
    photo.write_bytes(picture("red"))
    search = ["client", "--server", guarded.base_url, "--json", "search", str(photo)]
    answer = json.loads(command(*search, LOOKALIKE_KEY=made["key"]))
    assert [hit["item_id"] for hit in answer["result"]["hits"]] == ["red"]
    with pytest.raises(subprocess.CalledProcessError) as refused:
        command(*search)
    assert "Authorization: Bearer" in refused.value.stderr
    image = answer["result"]["hits"][0]["image_url"]
    assert requests.get(guarded.base_url + image, timeout=30).content == picture("red")
    assert guarded.get(image.partition("?")[0]).status_code == 401


def test_the_page_asks_for_a_key_and_goes_on_with_it(guarded: Stack, admin: str, chromium_launcher: Launcher) -> None:
    browser = chromium_launcher()
    page = browser.new_page(base_url=guarded.base_url)
    page.goto("/")
    field = page.get_by_label("This catalogue asks for an API key")
    field.fill("lk_000000000000_" + "x" * 43)
    field.press("Enter")
    expect(page.get_by_role("alert").first).to_contain_text("not known")
    field.fill(admin)
    field.press("Enter")
    expect(page.locator("#shelf-items img").first).to_be_visible()
    expect(field).to_be_hidden()
    page.locator("#shelf-items a").first.click()
    expect(page.locator("#results-title")).not_to_have_text("Searching…")
    expect(page.get_by_role("alert").filter(has_text="key")).to_have_count(0)
    page.reload()
    expect(field).to_be_hidden()
    assert page.context.cookies() == []
    browser.close()
