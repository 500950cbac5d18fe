"""Filters of every operator, checked against the rows of the catalogue file."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.pictures import picture
from tests.e2e.steps import hits_of, ids_of, put_item, search_json
from tests.stack import Stack

Product = dict[str, Any]
RANGE = {"price": {"gte": 30, "lt": 45.95}}

FILTERS: list[tuple[dict[str, Any], Callable[[Product], bool]]] = [
    ({"colour": "red"}, lambda p: p["colour"] == "red"),
    ({"colour": {"eq": "red"}}, lambda p: p["colour"] == "red"),
    ({"category": "hat", "colour": {"ne": "red"}}, lambda p: p["category"] == "hat" and p["colour"] != "red"),
    ({"category": {"in": ["hat", "belt", "nothing"]}}, lambda p: p["category"] in ("hat", "belt")),
    ({"price": {"gt": 95.95}}, lambda p: p["price"] > 95.95),
    ({"price": {"gte": 95.95}}, lambda p: p["price"] >= 95.95),
    ({"price": {"lt": 22.95}}, lambda p: p["price"] < 22.95),
    ({"price": {"lte": 22.95}}, lambda p: p["price"] <= 22.95),
    (RANGE, lambda p: 30 <= p["price"] < 45.95),
    ({"price": {"in": [22.95, 46.95]}}, lambda p: p["price"] in (22.95, 46.95)),
    ({"price": {"eq": 22.95}}, lambda p: p["price"] == 22.95),
    ({"colour": {"gte": "r", "lt": "s"}}, lambda p: "r" <= p["colour"] < "s"),
    ({"and": [{"gender": "men"}, {"pattern": "plain"}]}, lambda p: p["gender"] == "men" and p["pattern"] == "plain"),
    ({"or": [{"category": "hat"}, {"category": "belt"}]}, lambda p: p["category"] in ("hat", "belt")),
    (
        {"not": {"or": [{"category": {"in": ["hat"]}}, {"price": {"gt": 25}}]}},
        lambda p: not (p["category"] == "hat" or p["price"] > 25),
    ),
    (
        {
            "brand": {"in": ["Perrado", "Luminka", "Brisko"]},
            "or": [{"and": [RANGE, {"not": {"gender": "men"}}]}, {"colour": "red", "price": {"gte": 60}}],
        },
        lambda p: (
            p["brand"] in ("Perrado", "Luminka", "Brisko")
            and ((30 <= p["price"] < 45.95 and p["gender"] != "men") or (p["colour"] == "red" and p["price"] >= 60))
        ),
    ),
]


@pytest.mark.parametrize(("condition", "fits"), FILTERS, ids=[json.dumps(condition) for condition, _ in FILTERS])
def test_a_filter_lets_through_exactly_the_items_that_fit(
    stack: Stack, photo: bytes, products: list[Product], condition: dict[str, Any], fits: Callable[[Product], bool]
) -> None:
    wanted = {product["id"] for product in products if fits(product)}
    assert 0 < len(wanted) < len(products)
    found = ids_of(stack.search(photo, k=100, filter=json.dumps(condition)))
    assert len(set(found)) == len(found) == min(len(wanted), 100)
    assert set(found) <= wanted


def test_a_filter_keeps_order_and_scores(stack: Stack, photo: bytes) -> None:
    every = hits_of(stack.search(photo, k=100))
    kept = hits_of(stack.search(photo, k=100, filter=json.dumps(RANGE)))
    scores = {hit["item_id"]: hit["score"] for hit in kept}
    fitting = [hit["item_id"] for hit in every if 30 <= hit["attributes"]["price"] < 45.95]
    assert len(fitting) > 5
    assert [hit["item_id"] for hit in kept][: len(fitting)] == fitting
    assert all(scores[hit["item_id"]] == hit["score"] for hit in every if hit["item_id"] in scores)


def test_more_like_this_takes_a_filter(stack: Stack, products: list[Product]) -> None:
    item = products[0]
    job = search_json(stack, item_id=item["id"], k=100, filter={"category": item["category"]})
    same = {product["id"] for product in products if product["category"] == item["category"]} - {item["id"]}
    assert set(ids_of(job)) == same


def test_an_empty_filter_lets_everything_through(stack: Stack, photo: bytes) -> None:
    assert ids_of(stack.search(photo, filter="{}")) == ids_of(stack.search(photo))


def test_a_filter_that_no_item_fits_gives_no_hits_and_the_reason(stack: Stack, photo: bytes) -> None:
    result = stack.search(photo, filter='{"colour": "transparent"}')["result"]
    assert (result["hits"], result["reason"]) == ([], "no_item_matches_filter")


def test_booleans_and_absent_fields_are_filtered_as_the_item_says(scratch_stack: Stack) -> None:
    put_item(scratch_stack, "old", picture("old"), attributes={"is_new": False, "stock": 0})
    put_item(scratch_stack, "new", picture("new"), attributes={"is_new": True, "stock": 3})
    put_item(scratch_stack, "unknown", picture("unknown"), attributes={})

    def found(condition: dict[str, Any]) -> set[str]:
        return set(ids_of(scratch_stack.search(picture("old"), filter=json.dumps(condition))))

    assert found({"is_new": True}) == {"new"}
    assert found({"is_new": False}) == {"old"}
    assert found({"is_new": {"in": [True, False]}}) == {"old", "new"}
    assert found({"is_new": {"ne": True}}) == {"old"}
    assert found({"not": {"is_new": True}}) == {"old", "unknown"}
    assert found({"stock": {"lt": 1}}) == {"old"}
