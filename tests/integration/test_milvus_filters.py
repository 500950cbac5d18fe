"""Filters as Milvus evaluates them let through the items that the database's SQL lets through, and no others."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.attributes import COMPARED_CHARACTERS, AttributeValue
from shared.catalogue import Catalogue
from shared.catalogue_change import ItemChange
from shared.database import connect_database
from shared.errors import InvalidFilter
from shared.filters import RANGES, compile_filter, parse_filter
from shared.migrations import upgrade
from tests.faiss_kinds import unit
from tests.item_index_kinds import X, in_milvus, put
from tests.servers import RedisProcess
from tests.unit.test_filters import ITEMS, conditions
from worker.milvus.connection import MilvusConnection
from worker.milvus.expressions import ATTRIBUTES_MAX_BYTES, expression, stored_attributes
from worker.milvus.milvus_index import MilvusIndex

TEXTS = [
    "",
    " ",
    "plain",
    "it's",
    'a "quoted" word',
    "'",
    '"',
    "\\",
    "\\\\",
    '\\"',
    "C:\\new\\table",
    "\\u0041 and \\x41 and \\101",
    "two\nlines",
    "a\ttab\r\n",
    "100%",
    "under_score",
    "% or 1 == 1",
    '" or id > 0 or $meta["a_t"] == "',
    "$meta",
    "{value}",
    "[1, 2]",
    "true",
    "null",
    "ärmellos",
    "漢字",
    "かな",
    "e\u0301",
    "é",
    "👗👠",
    "\U00020000",
    "\u200b",
    "\x01\x7f",
    "z" * COMPARED_CHARACTERS + " cut off here",
]
Found = tuple[Catalogue, MilvusIndex]


def fill(
    folder: Any, items: dict[str, dict[str, AttributeValue]], milvus: MilvusConnection, client: redis.Redis
) -> Found:
    engine = connect_database(f"sqlite:///{folder}/lookalike.sqlite3")
    upgrade(engine)
    catalogue = Catalogue(engine)
    vectors = unit(len(items))
    put(catalogue, {name: [vectors[place]] for place, name in enumerate(items)}, attributes=items)
    return catalogue, in_milvus(catalogue, milvus, client)


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory, milvus: MilvusConnection, redis_server: RedisProcess
) -> Iterator[Found]:
    with redis.Redis.from_url(redis_server.url) as client:
        found = fill(tmp_path_factory.mktemp("filters"), ITEMS, milvus, client)
        yield found
        found[0].engine.dispose()


@pytest.fixture(scope="module")
def texts(
    tmp_path_factory: pytest.TempPathFactory, milvus: MilvusConnection, redis_server: RedisProcess
) -> Iterator[Found]:
    items: dict[str, dict[str, AttributeValue]] = {f"i{place}": {"t": text} for place, text in enumerate(TEXTS)}
    with redis.Redis.from_url(redis_server.url) as client:
        found = fill(tmp_path_factory.mktemp("texts"), {**items, "without": {}}, milvus, client)
        yield found
        found[0].engine.dispose()


def in_sql(catalogue: Catalogue, condition: dict[str, Any]) -> set[int]:
    return set(catalogue.image_rows(compile_filter(condition, catalogue.attribute_types())))


def in_index(index: MilvusIndex, condition: dict[str, Any]) -> set[int]:
    return {row for row, _ in index.nearest_items(X[None], 1000, index.allowed(condition))}


@given(conditions)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_milvus_finds_what_sql_finds(shop: Found, condition: dict[str, Any]) -> None:
    catalogue, index = shop
    try:
        expected = in_sql(catalogue, condition)
    except InvalidFilter:
        return  # too deep; test_filters.py has those
    assert in_index(index, condition) == expected


_words = st.sampled_from(["eq", "ne", *RANGES])
_texts = st.sampled_from(TEXTS) | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@given(_words, _texts, st.booleans())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_is_compared_as_it_stands(texts: Found, word: str, text: str, is_not: bool) -> None:
    catalogue, index = texts
    condition: dict[str, Any] = {"t": {word: text}}
    condition = {"not": condition} if is_not else condition
    assert in_index(index, condition) == in_sql(catalogue, condition)


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_each_text_is_found_by_itself_alone_and_in_a_list(texts: Found, text: str) -> None:
    catalogue, index = texts
    expected = in_sql(catalogue, {"t": text})
    assert len(expected) == 1
    assert in_index(index, {"t": text}) == in_index(index, {"t": {"in": ["nowhere", text]}}) == expected
    assert in_index(index, {"not": {"t": text}}) == in_sql(catalogue, {"not": {"t": text}})


def test_a_list_may_be_as_long_as_filters_allow(texts: Found) -> None:
    catalogue, index = texts
    condition = {"t": {"in": [f"number {number}" for number in range(999)] + ["plain"]}}
    assert in_index(index, condition) == in_sql(catalogue, condition)
    assert in_index(index, {"not": condition}) == in_sql(catalogue, {"not": condition})


def test_names_with_spaces_hyphens_and_underscores_are_told_apart(
    tmp_path: Any, milvus: MilvusConnection, redis_client: redis.Redis
) -> None:
    names = ["a_b", "a b", "a-b", "ab", "id", "vector", "in", "_", "a_"]
    catalogue, index = fill(
        tmp_path, {f"i{place}": {name: "x"} for place, name in enumerate(names)}, milvus, redis_client
    )
    for name in names:
        for condition in ({name: "x"}, {name: {"ne": "y"}}, {"not": {name: "x"}}, {"not": {name: {"ne": "y"}}}):
            assert in_index(index, condition) == in_sql(catalogue, condition), condition
    catalogue.engine.dispose()


def test_attributes_too_long_for_a_row_leave_out_the_longest(caplog: pytest.LogCaptureFixture) -> None:
    long = {f"text{number}": "漢" * (COMPARED_CHARACTERS - number) for number in range(60)}
    stored = stored_attributes("shirt", {**long, "colour": "red", "price": 5})
    assert (stored["a_colour"], stored["a_price"]) == ("red", 5.0)
    assert "a_text0" not in stored
    assert "a_text59" in stored
    assert sum(len(str(value).encode()) for value in stored.values()) < ATTRIBUTES_MAX_BYTES + 2000
    assert "'shirt' can't be filtered by text0" in caplog.text


def test_no_expression_has_a_not_before_what_may_be_unknown() -> None:
    types = {"colour": "string", "price": "number"}
    said = expression(parse_filter({"not": {"or": [{"colour": "red"}, {"not": {"price": {"gt": 5}}}]}}, types))
    assert said == '((not (exists $meta["a_colour"]) or $meta["a_colour"] != "red") and $meta["a_price"] > 5.0)'


def test_an_item_may_be_filtered_by_an_attribute_that_it_got_later(
    tmp_path: Any, milvus: MilvusConnection, redis_client: redis.Redis
) -> None:
    catalogue, index = fill(tmp_path, {"a": {"colour": "red"}, "b": {}}, milvus, redis_client)
    with catalogue.change() as change:
        change.put([ItemChange("b", "", {"weight": 1.5}, None)])
    index.follow()
    assert in_index(index, {"weight": {"gte": 1.5}}) == in_sql(catalogue, {"weight": {"gte": 1.5}})
    assert len(in_index(index, {"weight": 1.5})) == 1
    catalogue.engine.dispose()
