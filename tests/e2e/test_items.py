"""Single items: written, read, listed, deleted; what is written is searchable at once, what is deleted gone."""

import hashlib
import json
import time
from typing import Any

import pytest

from tests.camera import SECRET, taken
from tests.e2e.pictures import PictureServer, decoded, drawing, encoded, picture
from tests.e2e.steps import all_items, assert_failed, assert_problem, hits_of, ids_of, put_item
from tests.stack import Stack, wait_until

SEARCHABLE_SECONDS = 2


def test_an_item_with_photos_is_searchable_within_two_seconds_and_gone_as_fast(scratch_stack: Stack) -> None:
    photo = picture("dress, front")

    def is_found() -> bool:
        return ids_of(scratch_stack.search(photo)) == ["dress"]

    assert not is_found()
    put_item(scratch_stack, "dress", photo, picture("dress, back"), title="Dress", attributes={"colour": "red"})
    wait_until(is_found, SEARCHABLE_SECONDS, "the new item is found")

    put_item(scratch_stack, "dress", title="Dress", attributes={"colour": "blue"})
    blue = json.dumps({"colour": "blue"})
    wait_until(
        lambda: ids_of(scratch_stack.search(photo, filter=blue)) == ["dress"], SEARCHABLE_SECONDS, "the new colour"
    )

    put_item(scratch_stack, "dress", picture("dress, on a beach"), title="Dress", attributes={"colour": "blue"})
    wait_until(
        lambda: hits_of(scratch_stack.search(photo, fresh=True))[0]["score"] < 0.99, SEARCHABLE_SECONDS, "the new photo"
    )

    assert scratch_stack.delete("/v1/items/dress").status_code == 204
    wait_until(lambda: not is_found(), SEARCHABLE_SECONDS, "the deleted item is gone")
    assert scratch_stack.search(photo, fresh=True)["result"]["reason"] == "catalogue_empty"
    scratch_stack.group.require_alive()


def test_an_item_is_read_as_it_was_written(scratch_stack: Stack) -> None:
    photos = [picture("shoe, left"), encoded(drawing("shoe, right"), "JPEG")]
    attributes: dict[str, Any] = {"colour": "red", "price": 19.95, "stock": 3, "is_new": True, "shop floor-2": "né ♥"}
    files = [
        ("item", (None, json.dumps({"title": "Shoe", "attributes": attributes}))),
        ("image", photos[0]),
        ("image", photos[1]),
    ]
    answer = scratch_stack.put("/v1/items/shoe:42~b", files=files, headers={"Prefer": "wait=20"})
    job = scratch_stack.finished(answer.json()["id"])
    assert (job["kind"], job["status"], job["result"]["embedded"]) == ("import", "succeeded", 2)

    item = scratch_stack.get("/v1/items/shoe:42~b").json()
    assert (item["title"], item["attributes"]) == ("Shoe", attributes)
    assert [image["position"] for image in item["images"]] == [0, 1]
    for image, photo, media_type in zip(item["images"], photos, ("image/png", "image/jpeg"), strict=True):
        read = scratch_stack.get(image["url"])
        assert (read.content, read.headers["Content-Type"]) == (photo, media_type)


def test_without_prefer_an_item_with_photos_is_a_job_to_poll(scratch_stack: Stack) -> None:
    answer = scratch_stack.put("/v1/items/hat", files={"image": picture("hat")})
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/v1/jobs/{answer.json()['id']}"
    assert int(answer.headers["Retry-After"]) >= 1
    assert scratch_stack.finished(answer.json()["id"])["status"] == "succeeded"
    assert scratch_stack.get("/v1/items/hat").json()["title"] == ""


def test_attributes_alone_are_written_at_once_and_the_photos_stay(scratch_stack: Stack) -> None:
    new = scratch_stack.put("/v1/items/belt", json={"title": "Belt", "attributes": {"colour": "red"}})
    assert (new.status_code, new.json()["images"]) == (201, [])
    put_item(scratch_stack, "belt", picture("belt"), title="Belt", attributes={"colour": "red"})
    images = scratch_stack.get("/v1/items/belt").json()["images"]
    assert len(images) == 1

    changed = scratch_stack.put("/v1/items/belt", json={"title": "Belt", "attributes": {"price": 5}})
    assert changed.status_code == 200
    assert changed.json() == scratch_stack.get("/v1/items/belt").json()
    assert (changed.json()["attributes"], changed.json()["images"]) == ({"price": 5}, images)


def test_photos_of_an_item_may_be_named_by_url(scratch_stack: Stack, shop: PictureServer) -> None:
    urls = [shop.add("/front.png", picture("front")), shop.add("/back.png", picture("back"))]
    answer = scratch_stack.put("/v1/items/coat", json={"image_urls": urls}, headers={"Prefer": "wait=20"})
    assert scratch_stack.finished(answer.json()["id"])["status"] == "succeeded"
    hits = hits_of(scratch_stack.search(picture("back")))
    assert [(hit["item_id"], "position=1&" in hit["image_url"]) for hit in hits] == [("coat", True)]
    assert hits[0]["score"] == pytest.approx(1, abs=1e-3)


def test_a_photo_that_cant_be_used_leaves_the_item_as_it_was(scratch_stack: Stack, shop: PictureServer) -> None:
    put_item(scratch_stack, "cap", picture("cap"), title="Cap")
    before = scratch_stack.get("/v1/items/cap").json()
    cut = encoded(drawing("cut", 300), "JPEG")[:-400]
    broken = scratch_stack.put("/v1/items/cap", files=[("image", picture("other")), ("image", cut)])
    assert_failed(scratch_stack.finished(broken.json()["id"]), "image_broken")
    missing = scratch_stack.put("/v1/items/cap", json={"image_urls": [shop.add("/a.png", b"") + "nothing"]})
    assert_failed(scratch_stack.finished(missing.json()["id"]), "image_fetch_failed")
    assert_problem(
        scratch_stack.put("/v1/items/cap", json={"image_urls": ["ftp://example.com/a.png"]}), 422, "url_refused"
    )
    assert scratch_stack.get("/v1/items/cap").json() == before


@pytest.mark.parametrize(
    ("item", "code"),
    [
        ({"titel": "Bag"}, "invalid_parameter"),
        ({"title": "a" * 1001}, "invalid_parameter"),
        ({"title": "a\0b"}, "invalid_parameter"),
        ({"attributes": {"colour": None}}, "invalid_parameter"),
        ({"attributes": {"colour": ["red"]}}, "invalid_parameter"),
        ({"attributes": {"colour": "re\0d"}}, "invalid_parameter"),
        ({"attributes": {"9lives": "red"}}, "invalid_parameter"),
        ({"attributes": {"and": "red"}}, "invalid_parameter"),
        ({"attributes": {"price": 2**53 + 1}}, "invalid_parameter"),
        ({"attributes": {"price": float("nan")}}, "invalid_parameter"),
        ({"attributes": {"price": "cheap"}}, "attribute_type_mismatch"),
        ({"attributes": {"colour": 7}}, "attribute_type_mismatch"),
        ({"image_urls": []}, "invalid_parameter"),
    ],
)
def test_an_item_that_cant_be_kept_is_refused(stack: Stack, item: dict[str, Any], code: str) -> None:
    headers = {"Content-Type": "application/json"}
    assert_problem(stack.put("/v1/items/refused", data=json.dumps(item), headers=headers), 422, code)
    assert_problem(stack.get("/v1/items/refused"), 404, "item_not_found")


def test_what_is_not_there_is_not_found(stack: Stack) -> None:
    for answer in (stack.get("/v1/items/nobody"), stack.delete("/v1/items/nobody")):
        assert_problem(answer, 404, "item_not_found")
    for path in ("/v1/items/nobody/image", "/v1/items/sample-0001/image?position=99"):
        assert_problem(stack.get(path), 404, "image_not_found")
    for path in ("/v1/items/-no", "/v1/items/a%00b", f"/v1/items/{'a' * 129}", "/v1/items/a/image?position=-1"):
        assert_problem(stack.get(path), 422, "invalid_parameter")
    assert_problem(stack.get(f"/v1/items/sample-0001/image?position={10**30}"), 422, "invalid_parameter")


def test_a_deleted_item_can_be_written_again(scratch_stack: Stack) -> None:
    put_item(scratch_stack, "sock", picture("sock"), title="Sock")
    assert scratch_stack.delete("/v1/items/sock").status_code == 204
    assert_problem(scratch_stack.delete("/v1/items/sock"), 404, "item_not_found")
    assert_problem(scratch_stack.get("/v1/items/sock/image"), 404, "image_not_found")
    assert scratch_stack.put("/v1/items/sock", json={"title": "New sock"}).status_code == 201
    assert scratch_stack.get("/v1/items/sock").json()["images"] == []


@pytest.mark.parametrize("limit", [7, 60, 500])
def test_pages_list_every_item_once_by_id(stack: Stack, products: list[dict[str, Any]], limit: int) -> None:
    items = all_items(stack, limit)
    assert [item["id"] for item in items] == sorted(product["id"] for product in products)
    assert {item["id"]: len(item["images"]) for item in items} == {
        product["id"]: product["image"].count("|") + 1 for product in products
    }
    assert len(stack.get("/v1/items", params={"limit": limit}).json()["items"]) == min(limit, len(items))


def test_a_page_continues_behind_an_item_that_was_deleted_meanwhile(scratch_stack: Stack) -> None:
    for item_id in "abcd":
        put_item(scratch_stack, item_id)
    page = scratch_stack.get("/v1/items?limit=2").json()
    scratch_stack.delete("/v1/items/b")
    rest = scratch_stack.get("/v1/items", params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert [item["id"] for item in page["items"] + rest["items"]] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=all", "cursor=!!!", "cursor=AA", "cursor=%C3%A9"])
def test_a_page_that_there_cant_be_is_refused(stack: Stack, query: str) -> None:
    assert_problem(stack.get(f"/v1/items?{query}"), 422, "invalid_parameter")


def test_a_picture_is_sent_once_and_then_answered_with_304(stack: Stack) -> None:
    url = stack.get("/v1/items/sample-0001").json()["images"][0]["url"]
    first = stack.get(url)
    assert first.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert stack.get("/v1/items/sample-0001/image").headers["Cache-Control"] == "no-cache"
    for known in (first.headers["ETag"], f'"other", {first.headers["ETag"]}', "*"):
        again = stack.get(url, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"] == first.headers["ETag"]
    assert stack.get(url, headers={"If-None-Match": '"other"'}).content == first.content
    assert decoded(first.content).size == (320, 320)


def test_only_a_link_with_enough_of_the_hash_may_be_kept_for_good(stack: Stack) -> None:
    image = stack.get("/v1/items/sample-0001").json()["images"][0]
    path, sha256 = "/v1/items/sample-0001/image", image["sha256"]
    for start in ("", sha256[0], sha256[:11], sha256 + "0", sha256[:12].upper() + "Z"):
        assert_problem(stack.get(f"{path}?v={start}"), 422, "invalid_parameter")
    assert "immutable" in stack.get(f"{path}?v={sha256}").headers["Cache-Control"]
    assert stack.get(f"{path}?v={'0' * 12}").headers["Cache-Control"] == "no-cache"


def test_the_fields_of_the_catalogue_are_listed_with_their_values(stack: Stack, products: list[dict[str, Any]]) -> None:
    fields = {field["name"]: field for field in stack.get("/v1/attributes").json()["attributes"]}
    assert set(fields) == set(products[0]) - {"id", "title", "image"}
    prices = [product["price"] for product in products]
    assert (fields["price"]["type"], fields["price"]["values"]) == ("number", None)
    assert (fields["price"]["minimum"], fields["price"]["maximum"]) == (min(prices), max(prices))
    for name in ("category", "colour", "brand"):
        assert fields[name]["type"] == "string"
        assert set(fields[name]["values"]) == {product[name] for product in products}


def test_an_import_does_not_delay_a_single_item(scratch_stack: Stack, shop: PictureServer) -> None:
    rows = "".join(f"slow{n},{shop.add(f'/slow/{n}.png', picture(f'slow {n}'))}\n" for n in range(5))
    job_id = scratch_stack.post("/v1/imports", files={"file": ("slow.csv", f"id,image\n{rows}")}).json()["id"]
    wait_until(lambda: scratch_stack.get(f"/v1/jobs/{job_id}").json()["status"] == "running", 20, "the import runs")
    start = time.monotonic()
    put_item(scratch_stack, "quick", picture("quick"))
    assert ids_of(scratch_stack.search(picture("quick"))) == ["quick"]
    assert scratch_stack.get(f"/v1/jobs/{job_id}").json()["status"] == "running"
    assert time.monotonic() - start < 15
    shop.release.set()
    assert scratch_stack.finished(job_id)["result"]["imported"] == 5


@pytest.mark.parametrize("name", ["JPEG", "WEBP"])
def test_a_photo_with_a_place_is_found_by_itself_and_returned_without_the_place(
    scratch_stack: Stack, name: str
) -> None:
    photo = taken(drawing("on a beach"), name)
    put_item(scratch_stack, "beach", photo)
    hit = hits_of(scratch_stack.search(photo, fresh=True))[0]
    assert (hit["item_id"], round(hit["score"], 3)) == ("beach", 1)
    returned = scratch_stack.get(hit["image_url"]).content
    assert (SECRET in photo, SECRET in returned) == (True, False)
    assert decoded(returned).tobytes() == decoded(photo).tobytes()
    image = scratch_stack.get("/v1/items/beach").json()["images"][0]
    assert image["sha256"] == hashlib.sha256(returned).hexdigest()
