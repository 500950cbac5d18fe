"""Searches by photo, by URL and by item find what they should."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.e2e.pictures import PictureServer, decoded, encoded
from tests.e2e.steps import hits_of, ids_of, search_json
from tests.stack import Stack

LEFT = '{"x": 0, "y": 0, "width": 0.5, "height": 1}'
RIGHT = '{"x": 0.5, "y": 0, "width": 0.5, "height": 1}'


def catalogue_photo(folder: Path, product: dict[str, Any], number: int = 0) -> bytes:
    return (folder / product["image"].split("|")[number]).read_bytes()


def test_a_customers_photo_finds_the_item_in_it_and_tells_all_about_it(
    stack: Stack, photo: bytes, photographed: str, products: list[dict[str, Any]]
) -> None:
    job = stack.search(photo, fresh=True)
    hits, known = hits_of(job), {product["id"]: product for product in products}

    assert hits[0]["item_id"] == photographed
    assert [hit["rank"] for hit in hits] == list(range(1, 11))
    assert len({hit["item_id"] for hit in hits}) == 10
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert 0.3 < scores[-1] < scores[0] <= 1
    for hit in hits:
        product = known[hit["item_id"]]
        assert hit["title"] == product["title"]
        assert hit["attributes"] == {name: product[name] for name in product if name not in ("id", "title", "image")}
    assert job["result"]["release"].startswith("tf_efficientnet_lite0")
    assert job["result"]["catalogue_version"] > 0
    assert job["result"]["reason"] is None


def test_a_hits_link_gives_its_picture(stack: Stack, photo: bytes) -> None:
    for hit in hits_of(stack.search(photo, k=3)):
        answer = stack.get(hit["image_url"])
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/jpeg")
        item = stack.get(f"/v1/items/{hit['item_id']}").json()
        assert hashlib.sha256(answer.content).hexdigest() in [image["sha256"] for image in item["images"]]


def test_every_step_of_a_search_is_timed(stack: Stack, photo: bytes) -> None:
    job = stack.search(photo, fresh=True)
    timings = job["result"]["timings_ms"]
    assert set(timings) == {"queue", "refresh", "decode", "batch", "embed", "search", "hits", "total"}
    assert all(milliseconds >= 0 for milliseconds in timings.values())
    assert timings["embed"] > 0
    parts = sum(milliseconds for step, milliseconds in timings.items() if step != "total")
    assert parts <= timings["total"] + 1
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]


def test_a_photo_by_url_finds_the_same_as_the_photo_itself(stack: Stack, photo: bytes, shop: PictureServer) -> None:
    by_url = search_json(stack, image_url=shop.add("/photo.jpg?size=large", photo), fresh=True)
    assert hits_of(by_url) == hits_of(stack.search(photo, fresh=True))
    assert by_url["result"]["timings_ms"]["fetch"] > 0


def test_more_like_this_finds_what_the_items_picture_finds_without_the_item(
    stack: Stack, sample_catalogue: Path, products: list[dict[str, Any]]
) -> None:
    item = next(product for product in products if "|" not in product["image"])
    by_photo = ids_of(stack.search(catalogue_photo(sample_catalogue, item), k=21, fresh=True))
    assert by_photo[0] == item["id"]
    assert ids_of(search_json(stack, item_id=item["id"], k=20, fresh=True)) == by_photo[1:]


def test_more_like_this_searches_with_all_pictures_of_an_item(
    stack: Stack, sample_catalogue: Path, products: list[dict[str, Any]]
) -> None:
    item = next(product for product in products if product["image"].count("|") == 1)
    photos = [catalogue_photo(sample_catalogue, item, number) for number in (0, 1)]
    best: dict[str, float] = {}
    for searched in photos:
        for hit in hits_of(stack.search(searched, k=30, fresh=True)):
            best[hit["item_id"]] = max(best.get(hit["item_id"], -1), hit["score"])
    del best[item["id"]]
    wanted = sorted(best, key=lambda item_id: -best[item_id])[:20]
    assert ids_of(search_json(stack, item_id=item["id"], k=20)) == wanted


def test_an_item_appears_once_with_the_score_and_link_of_its_best_picture(
    stack: Stack, sample_catalogue: Path, products: list[dict[str, Any]]
) -> None:
    item = max(products, key=lambda product: product["image"].count("|"))
    for position in range(item["image"].count("|") + 1):
        hits = hits_of(stack.search(catalogue_photo(sample_catalogue, item, position), k=50))
        assert hits[0]["item_id"] == item["id"]
        assert hits[0]["score"] == pytest.approx(1, abs=1e-3)
        assert f"position={position}&" in hits[0]["image_url"]
        assert len({hit["item_id"] for hit in hits}) == len(hits) == 50


def test_a_crop_searches_with_that_part_of_the_photo_alone(
    stack: Stack, sample_catalogue: Path, products: list[dict[str, Any]]
) -> None:
    pair = [next(p for p in products if p["category"] == category) for category in ("handbag", "sneaker")]
    photos = [decoded(catalogue_photo(sample_catalogue, product)) for product in pair]
    street = Image.new("RGB", (photos[0].width * 2, photos[0].height))
    for number, part in enumerate(photos):
        street.paste(part, (part.width * number, 0))

    for crop, product in zip((LEFT, RIGHT), pair, strict=True):
        hits = hits_of(stack.search(encoded(street), crop=crop))
        assert hits[0]["item_id"] == product["id"]
        assert hits[0]["score"] == pytest.approx(1, abs=1e-3)
    assert hits_of(stack.search(encoded(street)))[0]["score"] < 0.99


def test_a_crop_is_of_the_upright_photo(stack: Stack, photo: bytes) -> None:
    crop = '{"x": 0.1, "y": 0.2, "width": 0.5, "height": 0.6}'
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated = encoded(decoded(photo).transpose(Image.Transpose.ROTATE_90), exif=exif.tobytes())
    upright = stack.search(photo, crop=crop, fresh=True)
    assert hits_of(stack.search(rotated, crop=crop, fresh=True)) == hits_of(upright)
    assert hits_of(upright) != hits_of(stack.search(photo, fresh=True))


def test_a_crop_of_an_items_first_picture_can_be_searched_with(
    stack: Stack, sample_catalogue: Path, products: list[dict[str, Any]]
) -> None:
    item = products[0]
    crop = {"x": 0.25, "y": 0.25, "width": 0.5, "height": 0.5}
    picture = decoded(catalogue_photo(sample_catalogue, item))
    part = encoded(picture.crop((80, 80, 240, 240)))
    assert picture.size == (320, 320)
    wanted = [item_id for item_id in ids_of(stack.search(part, k=11, fresh=True)) if item_id != item["id"]][:10]
    assert ids_of(search_json(stack, item_id=item["id"], crop=crop)) == wanted


@pytest.mark.parametrize("k", [1, 25, 100])
def test_k_is_the_number_of_hits(stack: Stack, photo: bytes, k: int) -> None:
    found = ids_of(stack.search(photo, k=k))
    assert len(set(found)) == len(found) == k
    assert found == ids_of(stack.search(photo, k=100))[:k]


def test_a_least_score_leaves_out_the_hits_below_it(stack: Stack, photo: bytes) -> None:
    every = hits_of(stack.search(photo, k=50))
    least = every[19]["score"]
    kept = hits_of(stack.search(photo, k=50, min_score=least - 1e-6))
    assert kept == [hit for hit in every if hit["score"] >= least - 1e-6]
    assert 20 <= len(kept) < 50
    nothing = stack.search(photo, min_score=1)["result"]
    assert (nothing["hits"], nothing["reason"]) == ([], "all_below_min_score")
