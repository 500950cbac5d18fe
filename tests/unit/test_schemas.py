import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.schemas import (
    BatchRequest,
    Crop,
    ImportParameters,
    ImportRequest,
    Item,
    ItemWrite,
    JobStatus,
    SearchParameters,
    SearchRequest,
)

fractions = st.floats(0, 1, allow_nan=False)


@pytest.mark.parametrize(
    ("x", "y", "width", "height"),
    [(0, 0, 1, 1), (0.25, 0.5, 0.75, 0.5), (0.1, 0.2, 0.9, 0.8), (0.7, 0.9, 0.3, 0.1), (0, 0, 0.001, 0.001)],
)
def test_a_crop_inside_of_the_photo_is_fine(x: float, y: float, width: float, height: float) -> None:
    assert Crop(x=x, y=y, width=width, height=height).width == width


@pytest.mark.parametrize(
    ("x", "y", "width", "height"),
    [
        (0.5, 0, 0.6, 1),
        (0, 0.5, 1, 0.6),
        (-0.1, 0, 0.5, 0.5),
        (0, 1, 1, 0.1),
        (1, 0, 0.1, 1),
        (0, 0, 0, 1),
        (0, 0, 1, 0),
        (0, 0, 1.5, 1),
        (math.nan, 0, 1, 1),
        (0, 0, math.nan, 1),
        (0, 0, math.inf, 1),
    ],
)
def test_a_crop_that_is_empty_or_leaves_the_photo_is_refused(x: float, y: float, width: float, height: float) -> None:
    with pytest.raises(ValidationError):
        Crop(x=x, y=y, width=width, height=height)


@given(fractions, fractions, fractions, fractions)
def test_a_crop_is_taken_just_when_it_has_an_area_inside_of_the_photo(
    x: float, y: float, width: float, height: float
) -> None:
    inside = x < 1 and y < 1 and width > 0 and height > 0 and x + width <= 1.000001 and y + height <= 1.000001
    try:
        Crop(x=x, y=y, width=width, height=height)
    except ValidationError:
        assert not inside
    else:
        assert inside


@pytest.mark.parametrize("k", [1, 10, 100, "25"])
def test_k_is_a_number_from_1_to_100_even_as_the_text_of_a_form(k: Any) -> None:
    assert SearchParameters.model_validate({"k": k}).k == int(k)


@pytest.mark.parametrize("k", [0, -1, 101, "ten", "true", 1.5, None, [1]])
def test_another_k_is_refused_by_name(k: Any) -> None:
    with pytest.raises(ValidationError) as refusal:
        SearchParameters.model_validate({"k": k})
    assert [entry["loc"] for entry in refusal.value.errors()] == [("k",)]


@pytest.mark.parametrize("value", [True, False])
def test_true_and_false_are_no_numbers(value: bool) -> None:
    crop = {"x": 0, "y": 0, "width": 1, "height": 1}
    for wrong in ({"k": value}, {"min_score": value}, *({"crop": {**crop, name: value}} for name in crop)):
        with pytest.raises(ValidationError) as refusal:
            SearchParameters.model_validate(wrong)
        assert "it must be a number" in refusal.value.errors()[0]["msg"]


@pytest.mark.parametrize("score", [-1.01, 1.01, math.nan, math.inf, "high"])
def test_a_min_score_that_no_cosine_can_be_is_refused(score: Any) -> None:
    with pytest.raises(ValidationError):
        SearchParameters.model_validate({"min_score": score})
    assert SearchParameters.model_validate({"min_score": "-0.5"}).min_score == -0.5


def test_an_unknown_field_is_refused_so_that_no_typing_error_is_ignored() -> None:
    for model, body in (
        (SearchParameters, {"K": 5}),
        (SearchRequest, {"item_id": "a", "min_scores": 1}),
        (ImportParameters, {"modus": "replace"}),
        (ItemWrite, {"title": "A", "price": 5}),
    ):
        with pytest.raises(ValidationError) as refusal:
            model.model_validate(body)
        assert [entry["type"] for entry in refusal.value.errors()] == ["extra_forbidden"]


@pytest.mark.parametrize(
    "body",
    [{}, {"image_url": "https://h/a.jpg", "item_id": "a"}, {"image_url": ""}, {"item_id": ""}, {"image_url": None}],
)
def test_a_search_request_names_exactly_one_photo(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SearchRequest.model_validate(body)
    assert SearchRequest.model_validate({"item_id": "a"}).image_url is None
    assert SearchRequest.model_validate({"image_url": "https://h/a.jpg"}).item_id is None


@pytest.mark.parametrize("item_id", ["a", "A-1", "sku:42", "9.5_x~y@z+1", "x" * 128])
def test_an_item_id_is_made_of_characters_that_fit_in_a_path(item_id: str) -> None:
    assert SearchRequest.model_validate({"item_id": item_id}).item_id == item_id


@pytest.mark.parametrize("item_id", ["", "x" * 129, "-a", "../a", "a/b", "a b", "ä", "a\n", "a\0", "?", "a%2Fb"])
def test_another_item_id_is_refused(item_id: str) -> None:
    with pytest.raises(ValidationError):
        SearchRequest.model_validate({"item_id": item_id})


def test_attributes_keep_their_types() -> None:
    attributes = {"colour": "red", "size": 42, "price": 9.5, "sale": True, "code": "007", "whole": 5.0}
    kept = ItemWrite.model_validate({"attributes": attributes}).attributes
    assert kept == attributes
    assert [type(value) for value in kept.values()] == [str, int, float, bool, str, float]


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, 10**400, 2**53 + 1, "a\0b", None, ["red"], {"a": 1}],
    ids=lambda value: repr(value)[:20],
)
def test_a_value_that_no_database_or_no_json_could_hold_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        ItemWrite.model_validate({"attributes": {"x": value}})
    with pytest.raises(ValidationError):
        ItemWrite.model_validate({"title": "a\0b"})


@pytest.mark.parametrize("name", ["", "1st", "a.b", "x" * 65, "größe", "a\n", "and", "or", "not"])
def test_an_attribute_has_a_name_that_a_filter_can_use(name: str) -> None:
    with pytest.raises(ValidationError):
        ItemWrite.model_validate({"attributes": {name: 1}})
    assert ItemWrite.model_validate({"attributes": {"frame size-2_x": 1}}).attributes


def test_an_import_reads_columns_by_their_own_names() -> None:
    parameters = ImportParameters.model_validate({"columns": {"id": "sku", "image": "photo"}, "mode": "replace"})
    assert parameters.columns == {"id": "sku", "image": "photo"}
    for wrong in ({"columns": {"price": "cost"}}, {"mode": "append"}, {"format": "xlsx"}):
        with pytest.raises(ValidationError):
            ImportParameters.model_validate(wrong)
    with pytest.raises(ValidationError):
        ImportRequest.model_validate({"mode": "upsert"})


def test_a_status_knows_whether_it_is_final() -> None:
    finals = {status for status in JobStatus if status.is_final}
    assert finals == {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED}


def test_bodies_are_frozen() -> None:
    item = Item.model_validate({"id": "a", "title": "", "attributes": {}, "images": [], "updated_at": "2026-01-01"})
    with pytest.raises(ValidationError):
        item.title = "b"  # type: ignore[misc]


def test_groups_need_a_name_to_have_a_size() -> None:
    assert SearchParameters.model_validate({"group_by": "brand", "per_group": "3"}).per_group == 3
    assert SearchParameters.model_validate({"group_by": "@duplicates"}).per_group == 1
    for wrong in ({"per_group": 2}, {"group_by": ""}, {"group_by": "x" * 65}, {"group_by": "brand", "per_group": 0}):
        with pytest.raises(ValidationError):
            SearchParameters.model_validate(wrong)


@pytest.mark.parametrize(
    "body",
    [{}, {"item_ids": []}, {"item_ids": ["a"], "all_items": True}, {"all_items": False}, {"all_items": "true"}],
)
def test_a_batch_names_its_items_or_wants_all(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BatchRequest.model_validate(body)
    assert BatchRequest.model_validate({"item_ids": ["a", "no id at all"]}).k == 10
    assert BatchRequest.model_validate({"all_items": True}).item_ids is None
