"""Who may do what, with real keys in a real database. No worker runs: jobs stay queued."""

import hashlib
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import SecretStr
from redis import Redis
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from shared.catalogue import Catalogue
from shared.catalogue_change import ImageRef, ItemChange
from shared.database import connect_database
from shared.errors import ApiKeyNotFound
from shared.jobs import Jobs
from shared.migrations import upgrade
from shared.settings import InvalidSettings, Settings, load_settings
from shared.store import Store
from shared.tables import ApiKeyRow
from shared.webhook_secrets import signing_secrets
from tests.conftest import make_settings
from tests.e2e.pictures import picture
from tests.servers import RedisProcess
from tests.stack import WEBHOOK_SECRET, wait_until
from web.access import NEEDED, OPEN, OPEN_PREFIXES, needs_keys
from web.api_keys import REMEMBERED_SECONDS, ApiKeys, Scope
from web.app import create_app
from web.keys import main as keys_command

Client = Any  # Flask's; to it, a body that may not be JSON has no members

PHOTO = hashlib.sha256(picture("a")).hexdigest()
LINK = f"/v1/items/a/image?v={PHOTO[:12]}"


@pytest.fixture
def guarded(redis_server: RedisProcess, redis_client: Redis, tmp_path: Path) -> Settings:
    settings = make_settings(redis_server, tmp_path, access="keys")
    database = connect_database(settings.database_url)
    upgrade(database)
    with Catalogue(database).change() as change:
        change.put([ItemChange("a", "A", {}, [ImageRef(PHOTO, "image/png")])])
    database.dispose()
    assert Store(settings.store_url).put_images([picture("a")]) == [PHOTO]
    return settings


@pytest.fixture
def keys(guarded: Settings) -> Iterator[ApiKeys]:
    database: Engine = connect_database(guarded.database_url)
    yield ApiKeys(database)
    database.dispose()


@pytest.fixture
def admin(keys: ApiKeys) -> dict[str, str]:
    return bearer(keys, Scope.ADMIN)


@pytest.fixture
def client(guarded: Settings, admin: dict[str, str]) -> Client:
    return create_app(guarded).test_client()


def bearer(keys: ApiKeys, *scopes: Scope) -> dict[str, str]:
    return {"Authorization": f"Bearer {keys.create('test', scopes)[1]}"}


def search(client: Client, headers: dict[str, str]) -> Any:
    return client.post("/v1/searches", data={"image": (BytesIO(picture("a")), "a.png")}, headers=headers)


def refused(answer: Any, status: int, code: str) -> None:
    assert (answer.status_code, answer.json["code"]) == (status, code), answer.text
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)


def test_every_route_says_who_may(guarded: Settings, admin: dict[str, str]) -> None:
    app = create_app(guarded)
    routes = {
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not rule.rule.startswith(OPEN_PREFIXES)
    }
    assert routes == set(NEEDED)


def test_without_a_key_only_what_is_open_answers(client: Client) -> None:
    for (method, rule), needed in NEEDED.items():
        path = rule.replace("<item_id>", "a").replace("<job_id>", "x").replace("<release_id>", "x")
        path = path.replace("<key_id>", "0" * 12).replace("<path:filename>", "main.js")
        answer = client.open(path, method=method)
        if needed is OPEN and not path.endswith("/image"):
            assert answer.status_code in (200, 302, 503), path  # /readyz may not be ready
        else:
            refused(answer, 401, "api_key_missing")
        answer.close()
    for path in ("/docs/swagger", "/openapi.json"):
        assert client.get(path).status_code == 200
    assert client.get("/nowhere").status_code == 404


@pytest.mark.parametrize(
    "sent",
    [
        "Bearer nonsense",
        "Bearer lk_000000000000_" + "a" * 43,
        "Basic bGs6eA==",
        "Bearer ",
        "lk_",
        "Bearer lk_000000000000_" + "ü" * 43,
    ],
)
def test_what_is_no_key_is_refused(client: Client, sent: str) -> None:
    refused(client.get("/v1/items", headers={"Authorization": sent.encode().decode("latin-1")}), 401, "api_key_invalid")


def test_a_key_is_good_for_its_scopes_alone(client: Client, keys: ApiKeys, admin: dict[str, str]) -> None:
    searcher, supplier = bearer(keys, Scope.SEARCH), bearer(keys, Scope.CATALOGUE)
    assert search(client, searcher).status_code == 202
    refused(search(client, supplier), 403, "scope_missing")
    for headers in (searcher, supplier, admin):
        assert client.get("/v1/items", headers=headers).status_code == 200
    refused(client.put("/v1/items/b", json={"title": "B"}, headers=searcher), 403, "scope_missing")
    assert client.put("/v1/items/b", json={"title": "B"}, headers=supplier).status_code == 201
    for headers in (searcher, supplier):
        refused(client.get("/v1/keys", headers=headers), 403, "scope_missing")
        refused(client.get("/metrics", headers=headers), 403, "scope_missing")
    assert client.get("/metrics", headers=admin).status_code == 200
    assert search(client, admin).status_code == 202


def test_a_job_is_seen_by_the_key_that_made_it_and_by_admins(
    client: Client, keys: ApiKeys, admin: dict[str, str]
) -> None:
    mine, other = bearer(keys, Scope.SEARCH), bearer(keys, Scope.SEARCH)
    path = search(client, mine).headers["Location"]
    for ask in (client.get, client.delete):
        refused(ask(path, headers=other), 404, "job_not_found")
    refused(client.get(f"{path}/errors", headers=other), 404, "job_not_found")
    assert client.get(path, headers=admin).json["status"] == "queued"
    assert client.get(path, headers=mine).json["status"] == "queued"
    assert client.delete(path, headers=mine).json["status"] == "cancelled"


def test_idempotency_keys_are_each_api_keys_own(client: Client, keys: ApiKeys) -> None:
    again = {"Idempotency-Key": "the-same"}
    made = [search(client, bearer(keys, Scope.SEARCH) | again).json["id"] for _ in range(2)]
    assert made[0] != made[1]


def test_an_image_is_shown_to_those_with_a_key_or_with_its_link(client: Client, keys: ApiKeys) -> None:
    for path in ("/v1/items/a/image", f"/v1/items/a/image?v={'0' * 12}", "/v1/items/none/image"):
        refused(client.get(path), 401, "api_key_missing")
    holder = bearer(keys, Scope.SEARCH)
    for answer in (client.get(LINK), client.get("/v1/items/a/image", headers=holder)):
        assert (answer.status_code, answer.data) == (200, picture("a"))
    assert client.get("/v1/items/none/image", headers=holder).status_code == 404


def test_a_key_expires_and_can_be_revoked(client: Client, keys: ApiKeys, admin: dict[str, str]) -> None:
    brief, text = keys.create("brief", [Scope.SEARCH], datetime.now(UTC) + timedelta(hours=1))
    headers = {"Authorization": f"Bearer {text}"}
    assert client.get("/v1/items", headers=headers).status_code == 200
    answer = client.delete(f"/v1/keys/{brief.id}", headers=admin)
    assert answer.json["revoked_at"]
    refused(client.get("/v1/items", headers=headers), 401, "api_key_invalid")  # at once in the process that did it
    assert client.delete(f"/v1/keys/{brief.id}", headers=admin).json == answer.json
    expired = keys.create("old", [Scope.SEARCH], datetime.now(UTC) - timedelta(seconds=1))[1]
    refused(client.get("/v1/items", headers={"Authorization": f"Bearer {expired}"}), 401, "api_key_invalid")
    assert REMEMBERED_SECONDS <= 5


def test_a_key_is_remembered_no_longer_than_it_is_good(keys: ApiKeys) -> None:
    key, text = keys.create("brief", [Scope.SEARCH], datetime.now(UTC) + timedelta(seconds=REMEMBERED_SECONDS / 2))
    expires_at = key.expires_at
    assert expires_at is not None
    assert keys.check(text) is not None
    wait_until(lambda: datetime.now(UTC) >= expires_at, REMEMBERED_SECONDS, "the key expires")
    assert keys.check(text) is None
    assert key.is_usable(expires_at - timedelta(microseconds=1))
    assert not key.is_usable(expires_at)


def test_keys_are_managed_over_the_api(client: Client, keys: ApiKeys, admin: dict[str, str]) -> None:
    asked = {"name": "storefront", "scopes": ["search", "search"], "expires_in_days": 30}
    made = client.post("/v1/keys", json=asked, headers=admin)
    assert (made.status_code, made.headers["Cache-Control"]) == (201, "no-store")
    assert made.json["scopes"] == ["search"]
    old = {"Authorization": f"Bearer {made.json['key']}"}
    assert search(client, old).status_code == 202
    replaced = client.post(f"/v1/keys/{made.json['id']}/rotate", json={"overlap_seconds": 3600}, headers=admin)
    new = {"Authorization": f"Bearer {replaced.json['key']}"}
    assert (replaced.status_code, replaced.json["name"]) == (201, "storefront")
    assert made.json["webhook_secret"] is None, "this server has none"
    assert [search(client, headers).status_code for headers in (old, new)] == [202, 202]
    listed = {key["id"]: key for key in client.get("/v1/keys", headers=admin).json["keys"]}
    assert "key" not in listed[made.json["id"]]
    assert listed[made.json["id"]]["last_used_at"]
    soon = datetime.now(UTC) + timedelta(seconds=3700)
    assert datetime.fromisoformat(listed[made.json["id"]]["expires_at"]) < soon
    refused(client.post("/v1/keys/000000000000/rotate", json={}, headers=admin), 404, "api_key_not_found")
    refused(client.post("/v1/keys", json={"name": "x", "scopes": ["all"]}, headers=admin), 422, "invalid_parameter")


def test_who_makes_a_key_is_told_the_secret_of_its_callbacks(guarded: Settings, admin: dict[str, str]) -> None:
    settings = guarded.model_copy(update={"webhook_secret": SecretStr(WEBHOOK_SECRET)})
    client: Client = create_app(settings).test_client()
    made = client.post("/v1/keys", json={"name": "a", "scopes": ["search"]}, headers=admin).json
    replaced = client.post(f"/v1/keys/{made['id']}/rotate", json={}, headers=admin).json
    secrets = [key["webhook_secret"] for key in (made, replaced)]
    assert secrets == [signing_secrets(settings, key["id"])[0] for key in (made, replaced)]
    assert len({WEBHOOK_SECRET, *secrets}) == 3
    listed = client.get("/v1/keys", headers=admin).json["keys"]
    assert not [key for key in listed if "webhook_secret" in key]
    assert {key["id"]: key["replaces"] for key in listed}[replaced["id"]] == made["id"]


@pytest.mark.parametrize("overlap_seconds", [0, 3600])
def test_a_job_of_a_key_that_replaces_another_one_is_signed_for_both_while_both_are_good(
    client: Client, keys: ApiKeys, redis_client: Redis, guarded: Settings, overlap_seconds: int
) -> None:
    old, _ = keys.create("a", [Scope.SEARCH])
    new, text = keys.rotate(old.id, timedelta(seconds=overlap_seconds))
    job_id = search(client, {"Authorization": f"Bearer {text}"}).json["id"]
    job = Jobs(redis_client, guarded).get(job_id)
    assert (job.owner, job.predecessor) == (new.id, old.id if overlap_seconds else None)
    keys.revoke(old.id)
    client = create_app(guarded).test_client()  # another one, which does not remember the key
    job_id = search(client, {"Authorization": f"Bearer {text}"}).json["id"]
    assert Jobs(redis_client, guarded).get(job_id).predecessor is None, "a key that is revoked signs nothing"


def test_the_database_holds_no_key(keys: ApiKeys, guarded: Settings) -> None:
    _, text = keys.create("secret", [Scope.SEARCH])
    secret = text.split("_", 2)[2]
    database = connect_database(guarded.database_url)
    with Session(database) as session:
        for row in session.scalars(select(ApiKeyRow)):
            assert secret not in (row.secret_sha256, row.id, row.name)
    database.dispose()
    for file in Path(guarded.database_url.removeprefix("sqlite:///")).parent.glob("lookalike.sqlite3*"):
        assert secret.encode() not in file.read_bytes()


def test_no_key_is_logged(client: Client, keys: ApiKeys, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    headers = bearer(keys, Scope.SEARCH)
    search(client, headers)
    client.get("/v1/items", headers={"Authorization": headers["Authorization"] + "x"})
    assert headers["Authorization"].split("_", 2)[2] not in caplog.text


def test_a_use_is_noted_once_a_minute(keys: ApiKeys, guarded: Settings) -> None:
    key, text = keys.create("busy", [Scope.SEARCH])
    keys.check(text)
    database = connect_database(guarded.database_url)
    with Session(database) as session, session.begin():
        assert session.get_one(ApiKeyRow, key.id).last_used_at is not None
        session.execute(update(ApiKeyRow).values(last_used_at=None))
    keys.check(text)
    with Session(database) as session:
        assert session.get_one(ApiKeyRow, key.id).last_used_at is None
    database.dispose()


@pytest.mark.parametrize(
    ("access", "bind", "expected"),
    [
        ("auto", "127.0.0.1:8000", False),
        ("auto", "localhost:8000", False),
        ("auto", "[::1]:8000", False),
        ("auto", "unix:/run/lookalike.sock", False),
        ("auto", "0.0.0.0:8000", True),
        ("auto", "[::]:8000", True),
        ("auto", "10.0.0.5:80", True),
        ("auto", ":8000", True),
        ("auto", "shop.internal:8000", True),
        ("open", "0.0.0.0:8000", False),
        ("keys", "127.0.0.1:8000", True),
    ],
)
def test_keys_are_needed_wherever_others_may_come_in(access: str, bind: str, *, expected: bool, tmp_path: Path) -> None:
    settings = Settings(_env_file=None, access=access, web_bind=bind)
    assert needs_keys(settings) is expected


@pytest.mark.parametrize("bind", ["127.0.0.1:8000", "unix:/run/lookalike.sock"])
def test_keys_are_needed_behind_a_proxy(bind: str) -> None:
    assert needs_keys(Settings(_env_file=None, web_bind=bind, trusted_proxies=1))
    assert not needs_keys(Settings(_env_file=None, web_bind=bind, trusted_proxies=1, access="open"))


def test_it_does_not_start_where_nobody_could_come_in(guarded: Settings) -> None:
    with pytest.raises(InvalidSettings, match=r"(?s)python -m web\.keys create.*LOOKALIKE_ACCESS=open"):
        create_app(guarded)


def test_a_key_that_a_wrong_clock_took_for_expired_is_good_again_when_the_clock_is_right(guarded: Settings) -> None:
    database, now = connect_database(guarded.database_url), datetime.now(UTC)
    key, text = ApiKeys(database).create("a", [Scope.SEARCH], now + timedelta(minutes=30))

    def check_with_a_clock_off_by(hours: float) -> bool:
        shift = timedelta(hours=hours)
        with database.begin() as connection:
            moments = {"expires_at": now + timedelta(minutes=30) - shift, "last_used_at": now - shift}
            connection.execute(update(ApiKeyRow).where(ApiKeyRow.id == key.id).values(**moments))
        return ApiKeys(database).check(text) is not None

    assert [check_with_a_clock_off_by(hours) for hours in (0, 1, 0, -1, 0)] == [True, False, True, True, True]
    database.dispose()


@pytest.mark.parametrize(
    "host",
    ["shop.example", "localhost.shop.example:8000", "10.0.0.5", "[::2]:8000", "127.1", "unix:8000", "["],
)
def test_a_server_without_keys_answers_to_this_machine_alone(guarded: Settings, host: str) -> None:
    client = create_app(guarded.model_copy(update={"access": "auto"})).test_client()
    refused(client.get("/v1/items", headers={"Host": host}), 403, "host_refused")
    refused(client.get("/", headers={"Host": host}), 403, "host_refused")


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:8000", "127.5.5.5", "[::1]:8000", "localhost."]
)
def test_a_page_of_this_server_may_write_and_one_of_another_site_may_not(guarded: Settings, host: str) -> None:
    client = create_app(guarded.model_copy(update={"access": "auto"})).test_client()

    def delete(**headers: str) -> Any:
        return client.delete("/v1/items/a", headers={"Host": host, **headers})

    assert delete().status_code == 204
    assert delete(Origin=f"http://{host}").status_code == 404  # it is gone
    for origin in ("https://evil.example", "null", "http://[", f"http://{host}.evil.example", "http://localhost:1"):
        refused(delete(Origin=origin), 403, "origin_refused")
        assert client.get("/v1/items", headers={"Host": host, "Origin": origin}).status_code == 200


def test_an_origin_that_is_named_may_write(guarded: Settings) -> None:
    settings = guarded.model_copy(update={"access": "auto", "allowed_origins": "https://shop.example"})
    client = create_app(settings).test_client()
    assert client.delete("/v1/items/a", headers={"Origin": "https://shop.example"}).status_code == 204
    refused(client.delete("/v1/items/a", headers={"Origin": "https://evil.example"}), 403, "origin_refused")


def test_a_server_that_is_open_on_purpose_answers_to_every_name(guarded: Settings) -> None:
    client = create_app(guarded.model_copy(update={"access": "open"})).test_client()
    headers = {"Host": "shop.example", "Origin": "https://other.example"}
    assert client.delete("/v1/items/a", headers=headers).status_code == 204


def test_an_open_server_asks_for_nothing(guarded: Settings, admin: dict[str, str]) -> None:
    client = create_app(guarded.model_copy(update={"access": "open"})).test_client()
    assert search(client, {}).status_code == 202
    assert client.get("/v1/keys").status_code == 200


def test_the_command_makes_lists_replaces_and_revokes(guarded: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", guarded.database_url)
    runner = CliRunner()
    made = runner.invoke(keys_command, ["create", "--name", "front", "--scope", "search", "--days", "30"])
    assert made.exit_code == 0, made.output
    text = made.stdout.strip().splitlines()[-1]
    key_id = text.split("_")[1]
    assert text.startswith("lk_")
    replaced = runner.invoke(keys_command, ["rotate", key_id])
    assert replaced.exit_code == 0, replaced.output
    revoked = runner.invoke(keys_command, ["revoke", key_id])
    assert "revoked" in revoked.output
    listed = runner.invoke(keys_command, ["list"]).output
    assert listed.count("front") == 2
    assert text not in listed
    without = runner.invoke(keys_command, ["webhook-secret", key_id])
    assert (without.exit_code, "LOOKALIKE_WEBHOOK_SECRET is not set" in without.output) == (1, True)
    monkeypatch.setenv("LOOKALIKE_WEBHOOK_SECRET", WEBHOOK_SECRET)
    secret = runner.invoke(keys_command, ["webhook-secret", key_id]).stdout
    assert secret == f"{signing_secrets(load_settings(), key_id)[0]}\n"
    assert runner.invoke(keys_command, ["webhook-secret", "nothing"]).exit_code == 1
    refused_ = runner.invoke(keys_command, ["revoke", "nothing"])
    assert refused_.exit_code == 1
    assert "There is no key 'nothing'" in refused_.output


def test_a_key_that_is_gone_can_not_be_replaced(keys: ApiKeys) -> None:
    key, _ = keys.create("gone", [Scope.SEARCH])
    keys.revoke(key.id)
    with pytest.raises(ApiKeyNotFound):
        keys.rotate(key.id, timedelta(0))
