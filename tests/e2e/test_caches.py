"""Answers that were found before: same hits, no work, and never out of date."""

from pathlib import Path
from typing import Any

from tests.e2e.pictures import decoded, encoded, picture
from tests.e2e.steps import hits_of, ids_of, paused, put_item, search_json
from tests.stack import Stack


def source_of(job: dict[str, Any]) -> str:
    return str(job["result"]["answered_from"])


def test_a_repeated_photo_is_answered_at_once_without_any_worker(stack: Stack, photo: bytes) -> None:
    first = stack.search(photo, fresh=True, k=41)
    assert source_of(first) == "engine"
    with paused(stack, "search"):
        answer = stack.post("/v1/searches", files={"image": photo}, data={"k": 41})
        repeated = answer.json()
        assert (answer.status_code, repeated["status"]) == (200, "succeeded")
        assert answer.headers["Location"] == f"/v1/jobs/{repeated['id']}"
    timings = repeated["result"]["timings_ms"]
    assert set(timings) == {"total"}
    assert 0 < timings["total"] <= answer.elapsed.total_seconds() * 1000
    assert repeated["id"] != first["id"]
    assert source_of(repeated) == "result_cache"
    assert (repeated["started_at"], repeated["attempts"]) == (None, 0)
    assert hits_of(repeated) == hits_of(first)
    assert stack.get(f"/v1/jobs/{repeated['id']}").json() == repeated


def test_a_repeated_more_like_this_is_answered_without_any_worker(stack: Stack) -> None:
    first = search_json(stack, item_id="sample-0003", k=42)
    with paused(stack, "search"):
        answer = stack.post("/v1/searches", json={"item_id": "sample-0003", "k": 42})
    assert (answer.status_code, source_of(answer.json())) == (200, "result_cache")
    assert hits_of(answer.json()) == hits_of(first)


def test_a_known_photo_with_other_parameters_is_not_embedded_again(stack: Stack, photo: bytes) -> None:
    stack.search(photo, fresh=True, k=43)
    other = stack.search(photo, k=44)
    assert source_of(other) == "embedding_cache"
    assert "embed" not in other["result"]["timings_ms"]
    assert len(hits_of(other)) == 44


def test_a_compressed_copy_of_a_photo_is_answered_from_the_similar_result_cache(stack: Stack, photo: bytes) -> None:
    first = stack.search(photo, fresh=True, k=45)
    copy = encoded(decoded(photo), "JPEG", quality=80)
    assert copy != photo
    similar = stack.search(copy, k=45)
    assert source_of(similar) == "similar_result_cache"
    assert hits_of(similar) == hits_of(first)
    assert source_of(stack.search(copy, k=45)) == "result_cache"
    assert source_of(stack.search(copy, k=46)) == "embedding_cache"


def test_another_photo_is_never_answered_with_a_similar_ones_result(
    stack: Stack, photo: bytes, photographed: str, sample_catalogue: Path, products: list[dict[str, Any]]
) -> None:
    stack.search(photo, fresh=True, k=47)
    for product in products[:10]:
        other = stack.search((sample_catalogue / product["image"].split("|")[0]).read_bytes(), k=47)
        assert ids_of(other)[0] == product["id"] != photographed
        assert source_of(other) != "similar_result_cache"


def test_no_cache_asks_for_a_fresh_answer(stack: Stack, photo: bytes) -> None:
    cached = stack.search(photo, k=48)
    assert source_of(stack.search(photo, k=48)) == "result_cache"
    fresh = stack.search(photo, fresh=True, k=48)
    assert source_of(fresh) == "engine"
    assert fresh["started_at"] is not None
    assert fresh["result"]["timings_ms"]["embed"] > 0
    assert ids_of(fresh) == ids_of(cached)


def test_another_crop_of_the_same_photo_is_another_question(stack: Stack, photo: bytes) -> None:
    whole = stack.search(photo, k=49)
    part = stack.search(photo, k=49, crop='{"x": 0, "y": 0, "width": 0.4, "height": 0.4}')
    assert source_of(part) == "engine"
    assert hits_of(part) != hits_of(whole)


def test_a_change_of_the_catalogue_ends_what_was_cached(scratch_stack: Stack) -> None:
    put_item(scratch_stack, "bag", picture("bag"), title="Bag")
    asked = picture("bag")
    before = scratch_stack.search(asked)
    assert source_of(scratch_stack.search(asked)) == "result_cache"

    put_item(scratch_stack, "bag", title="Better bag")
    renamed = scratch_stack.search(asked)
    assert source_of(renamed) == "embedding_cache"
    assert [hit["title"] for hit in hits_of(renamed)] == ["Better bag"]
    assert renamed["result"]["catalogue_version"] > before["result"]["catalogue_version"]

    put_item(scratch_stack, "hat", picture("hat"), title="Hat")
    assert ids_of(scratch_stack.search(asked)) == ["bag", "hat"]
    scratch_stack.delete("/v1/items/bag")
    assert ids_of(scratch_stack.search(asked)) == ["hat"]


def test_a_write_that_changes_nothing_leaves_the_caches_valid(scratch_stack: Stack) -> None:
    put_item(scratch_stack, "bag", picture("bag"), title="Bag")
    scratch_stack.search(picture("bag"))
    put_item(scratch_stack, "bag", title="Bag")
    put_item(scratch_stack, "bag", picture("bag"), title="Bag")
    assert source_of(scratch_stack.search(picture("bag"))) == "result_cache"
