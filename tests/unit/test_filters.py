import operator
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select

from shared.attributes import AttributeValue
from shared.catalogue import Catalogue
from shared.catalogue_change import ItemChange
from shared.database import connect_database
from shared.errors import FilterTypeMismatch, InvalidFilter, LookalikeError, UnknownFilterField
from shared.filters import MAX_CONDITIONS, MAX_DEPTH, MAX_VALUES, OPERATORS, RANGES, compile_filter
from shared.migrations import upgrade
from shared.tables import ItemRow

TYPES = {"colour": "string", "price": "number", "sale": "boolean"}
# Every combination is an item; None: the item has no such field.
COLOURS = [None, "red", "blue", "", "Red", "ärmellos", "50% off_"]
PRICES = [None, -1, 0, 9.5, 10, 1e300]
SALES = [None, True, False]
ITEMS: dict[str, dict[str, AttributeValue]] = {
    f"i{number}": {name: value for name, value in zip(TYPES, values, strict=True) if value is not None}
    for number, values in enumerate(product(COLOURS, PRICES, SALES))
}

PYTHON: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "in": lambda value, values: value in values,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def lets_through(condition: Mapping[str, Any], item: Mapping[str, Any]) -> bool:
    """The meaning of a filter, as slowly and plainly as it can be said."""
    for name, value in condition.items():
        if name == "not":
            met = not lets_through(value, item)
        elif name == "and":
            met = all(lets_through(part, item) for part in value)
        elif name == "or":
            met = any(lets_through(part, item) for part in value)
        else:
            comparisons = value if isinstance(value, dict) else {"eq": value}
            met = name in item and all(PYTHON[word](item[name], operand) for word, operand in comparisons.items())
        if not met:
            return False
    return True


def depth_of(condition: Mapping[str, Any]) -> int:
    inner = [depth_of(condition["not"])] if "not" in condition else []
    inner += [depth_of(part) for word in ("and", "or") for part in condition.get(word, [])]
    return 1 + max(inner, default=0)


def _comparisons(field: str) -> st.SearchStrategy[Any]:
    texts = st.sampled_from(["red", "blue", "", "Red", "ärmellos", "50% off_", "%", "r", "Z", "zzz"])
    numbers = st.sampled_from([-1, 0, 9.5, 10, 1e300, -0.0, 9, 10.0, 2**53, -1e308]) | st.floats(-20, 20)
    value = {"string": texts, "number": numbers, "boolean": st.booleans()}[TYPES[field]]
    plain = [word for word in OPERATORS if word != "in" and (TYPES[field] != "boolean" or word not in RANGES)]
    words: dict[str, st.SearchStrategy[Any]] = dict.fromkeys(plain, value)
    optional = {**words, "in": st.lists(value, min_size=1, max_size=4)}
    by_operator = st.fixed_dictionaries({}, optional=optional).filter(bool)
    return value | by_operator.map(lambda found: dict(list(found.items())[:3]))


_fields = st.fixed_dictionaries({}, optional={field: _comparisons(field) for field in TYPES})
conditions = st.recursive(
    _fields,
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "and": st.lists(inner, min_size=1, max_size=3),
            "or": st.lists(inner, min_size=1, max_size=3),
            "not": inner,
            "colour": _comparisons("colour"),
        },
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    engine = connect_database(f"sqlite:///{tmp_path_factory.mktemp('filters')}/lookalike.sqlite3")
    upgrade(engine)
    with Catalogue(engine).change() as change:
        change.put([ItemChange(item_id, "", attributes, None) for item_id, attributes in ITEMS.items()])
    assert Catalogue(engine).attribute_types() == TYPES
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def found(connection: Connection, condition: Mapping[str, Any]) -> set[str]:
    return set(connection.execute(select(ItemRow.id).where(compile_filter(condition, TYPES))).scalars())


@given(conditions)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_sql_finds_what_the_filter_says(connection: Connection, condition: dict[str, Any]) -> None:
    try:
        ids = found(connection, condition)
    except InvalidFilter:
        assert depth_of(condition) > MAX_DEPTH
        return
    assert ids == {item_id for item_id, item in ITEMS.items() if lets_through(condition, item)}


def test_the_examples_of_the_documentation_find_some_items_and_not_all(connection: Connection) -> None:
    for condition in (
        {"colour": "red"},
        {"colour": {"in": ["red", "blue"]}},
        {"price": {"gte": 0, "lt": 10}},
        {"or": [{"colour": "red"}, {"sale": True}]},
        {"not": {"colour": "red"}},
        {"colour": "red", "price": {"gt": 5}, "sale": False},
    ):
        expected = {item_id for item_id, item in ITEMS.items() if lets_through(condition, item)}
        assert found(connection, condition) == expected
        assert 0 < len(expected) < len(ITEMS)


def test_the_empty_filter_lets_every_item_through(connection: Connection) -> None:
    assert found(connection, {}) == set(ITEMS)


def test_an_item_without_the_field_meets_no_comparison_but_does_meet_not(connection: Connection) -> None:
    without = {item_id for item_id, item in ITEMS.items() if "colour" not in item}
    assert without
    assert not found(connection, {"colour": {"ne": "red"}}) & without
    assert found(connection, {"not": {"colour": "red"}}) >= without


def test_text_is_compared_as_it_stands(connection: Connection) -> None:
    """No pattern, no case folding, no SQL."""
    assert not found(connection, {"colour": "%"})
    assert not found(connection, {"colour": "' OR 1=1 --"})
    assert not found(connection, {"colour": "red"}) & found(connection, {"colour": "Red"})
    assert found(connection, {"colour": "50% off_"})


@pytest.mark.parametrize(
    ("condition", "error"),
    [
        ({"size": 5}, UnknownFilterField),
        ({"Colour": "red"}, UnknownFilterField),
        ({"price": "10"}, FilterTypeMismatch),
        ({"price": True}, FilterTypeMismatch),
        ({"price": None}, FilterTypeMismatch),
        ({"colour": 5}, FilterTypeMismatch),
        ({"colour": ["red"]}, FilterTypeMismatch),
        ({"colour": {"in": ["red", 5]}}, FilterTypeMismatch),
        ({"sale": "true"}, FilterTypeMismatch),
        ({"sale": 1}, FilterTypeMismatch),
        ({"sale": {"gt": False}}, FilterTypeMismatch),
        ({"price": {"above": 5}}, InvalidFilter),
        ({"price": {}}, InvalidFilter),
        ({"price": 10**400}, InvalidFilter),
        ({"colour": "a\0b"}, InvalidFilter),
        ({"colour": {"in": "red"}}, InvalidFilter),
        ({"colour": {"in": []}}, InvalidFilter),
        ({"colour": {"in": ["red"] * (MAX_VALUES + 1)}}, InvalidFilter),
        ({"and": []}, InvalidFilter),
        ({"or": {"colour": "red"}}, InvalidFilter),
        ({"or": ["red"]}, InvalidFilter),
        ({"not": []}, InvalidFilter),
        ({"not": None}, InvalidFilter),
        ({"and": [{"colour": "red"}] * (MAX_CONDITIONS + 1)}, InvalidFilter),
        ([], InvalidFilter),
        ("colour", InvalidFilter),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_filter_that_means_nothing_is_refused(condition: Any, error: type[LookalikeError]) -> None:
    with pytest.raises(error) as refusal:
        compile_filter(condition, TYPES)
    assert type(refusal.value) is error
    assert len(refusal.value.detail) > 20


def test_a_filter_is_nested_up_to_a_depth_and_no_deeper() -> None:
    condition: dict[str, Any] = {"colour": "red"}
    for _ in range(MAX_DEPTH - 1):
        condition = {"not": condition}
    compile_filter(condition, TYPES)
    with pytest.raises(InvalidFilter, match="deep"):
        compile_filter({"not": condition}, TYPES)


def test_an_unknown_field_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownFilterField) as refusal:
        compile_filter({"size": 5}, TYPES)
    assert refusal.value.members == {"field": "size", "known_fields": ["colour", "price", "sale"]}
    with pytest.raises(UnknownFilterField, match="none yet"):
        compile_filter({"size": 5}, {})
