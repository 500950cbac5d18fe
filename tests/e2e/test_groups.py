"""Groups in searches, and near-duplicates of imports, over HTTP."""

from collections import Counter
from typing import Any

import pytest

from tests.e2e.pictures import picture
from tests.e2e.steps import assert_problem, hits_of, ids_of, put_item, search_json
from tests.e2e.tables import Row, csv_of, pictures_of, zip_of
from tests.stack import Stack


@pytest.mark.parametrize("per_group", [1, 2])
def test_of_each_value_so_many_items_are_hits(stack: Stack, photo: bytes, products: list[Row], per_group: int) -> None:
    categories = {product["category"] for product in products}
    k = len(categories) * per_group
    job = stack.search(photo, group_by="category", per_group=str(per_group), k=str(k))
    sizes = Counter(hit["attributes"]["category"] for hit in hits_of(job))
    assert sizes == dict.fromkeys(categories, per_group), "k hits, though the nearest are all of a few categories"
    plain = stack.search(photo, k="100")
    assert hits_of(job)[0]["item_id"] == hits_of(plain)[0]["item_id"]


def test_groups_and_filters_go_together(stack: Stack, photo: bytes) -> None:
    job = stack.search(photo, group_by="colour", k="5", filter='{"price": {"lt": 50}}')
    hits = hits_of(job)
    assert len({hit["attributes"]["colour"] for hit in hits}) == len(hits) == 5
    assert all(hit["attributes"]["price"] < 50 for hit in hits)


def test_an_answer_in_groups_is_cached_apart_from_the_plain_one(stack: Stack, photo: bytes) -> None:
    plain = stack.search(photo, k="7")
    grouped = stack.search(photo, k="7", group_by="brand")
    assert ids_of(plain) != ids_of(grouped)
    fields: dict[str, Any]
    for fields, job in (({}, plain), ({"group_by": "brand"}, grouped)):
        again = stack.search(photo, fresh=False, k="7", **fields)
        assert (again["result"]["answered_from"], ids_of(again)) == ("result_cache", ids_of(job))
    other = stack.search(photo, k="7", group_by="brand", per_group="2")
    assert other["result"]["answered_from"] == "embedding_cache"


@pytest.mark.parametrize("fields", [{"group_by": "color"}, {"group_by": "@dupes"}])
def test_a_group_that_there_is_not_is_refused_as_a_filter_field_is(
    stack: Stack, photo: bytes, fields: dict[str, Any]
) -> None:
    as_form = stack.post("/v1/searches", files={"image": photo}, data=fields)
    as_json = stack.post("/v1/searches", json={"item_id": "sample-0001", **fields})
    for answer in (as_form, as_json):
        problem = assert_problem(answer, 422, "filter_field_unknown")
        assert "category" in problem["known_fields"]


def test_copies_of_a_photo_under_several_ids_are_one_hit(scratch_stack: Stack) -> None:
    for number in range(6):
        put_item(scratch_stack, f"copy{number}", picture("copied"))
        put_item(scratch_stack, f"other{number}", picture(f"other {number}"))
    plain = scratch_stack.search(picture("copied"), k="6")
    assert {item_id[:4] for item_id in ids_of(plain)} == {"copy"}
    once = ids_of(scratch_stack.search(picture("copied"), k="7", group_by="@duplicates"))
    assert len(once) == 7
    assert [item_id[:4] for item_id in once].count("copy") == 1
    twice = ids_of(scratch_stack.search(picture("copied"), k="7", group_by="@duplicates", per_group="2"))
    assert [item_id[:4] for item_id in twice].count("copy") == 2
    by_item = search_json(scratch_stack, item_id="other0", group_by="@duplicates")
    assert [item_id[:4] for item_id in ids_of(by_item)].count("copy") == 1


def imported(stack: Stack, rows: list[Row], **options: str) -> dict[str, Any]:
    job = stack.imported(zip_of({"p.csv": csv_of(rows), **pictures_of(rows)}), "c.zip", **options)
    assert job["status"] == "succeeded", job
    result: dict[str, Any] = job["result"]
    return result


def test_an_import_tells_which_items_look_like_another(scratch_stack: Stack) -> None:
    put_item(scratch_stack, "there", picture("first"))
    rows: list[Row] = [
        {"id": "same", "image": ["first"]},
        {"id": "twin1", "image": ["second", "back of it"]},
        {"id": "twin2", "image": ["another side", "second"]},
        {"id": "alone", "image": ["third", "third again"]},
        {"id": "bad id!", "image": ["first"]},
    ]
    result = imported(scratch_stack, rows)
    assert (result["imported"], result["failed"], result["near_duplicates"]) == (4, 1, 3)
    pairs = {pair["item_id"]: (pair["duplicate_of"], pair["score"]) for pair in result["near_duplicate_pairs"]}
    assert pairs == {
        "same": ("there", pytest.approx(1, abs=1e-5)),
        "twin1": ("twin2", pytest.approx(1, abs=1e-5)),
        "twin2": ("twin1", pytest.approx(1, abs=1e-5)),
    }
    assert result["near_duplicates_skipped"] is None
    assert 0 < result["duplicate_min_cosine"] <= 1


def test_an_import_without_duplicates_reports_none_and_its_progress_ends_with_its_rows(scratch_stack: Stack) -> None:
    rows: list[Row] = [{"id": f"r{number}", "image": [f"picture {number}"]} for number in range(9)]
    job = scratch_stack.imported(zip_of({"p.csv": csv_of(rows), **pictures_of(rows)}), "c.zip")
    result = job["result"]
    assert (result["near_duplicates"], result["near_duplicate_pairs"]) == (0, [])
    assert (job["progress"]["done"], job["progress"]["total"], job["progress"]["step"]) == (9, 9, None)


def test_an_import_may_say_from_which_cosine_on_items_are_duplicates(scratch_stack: Stack) -> None:
    rows: list[Row] = [{"id": f"r{number}", "image": [f"picture {number}"]} for number in range(9)]
    result = imported(scratch_stack, rows, duplicate_min_cosine="0.5")
    assert result["duplicate_min_cosine"] == 0.5
    assert result["near_duplicates"] == len(result["near_duplicate_pairs"]) > 0
    assert all(pair["score"] >= 0.5 for pair in result["near_duplicate_pairs"])
    refused = scratch_stack.post("/v1/imports", files={"file": ("p.csv", b"id")}, data={"duplicate_min_cosine": "2"})
    assert_problem(refused, 422, "invalid_parameter")


def test_an_import_of_nothing_has_no_duplicates(scratch_stack: Stack) -> None:
    result = imported(scratch_stack, [{"id": "bad id!", "image": ["a"]}])
    assert (result["imported"], result["near_duplicates"]) == (0, 0)
