from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.attributes import AttributeValue
from shared.errors import AttributeTypeMismatch, RowInvalid
from worker.imports.attributes import convert, convert_rows, infer_types
from worker.imports.rows import CatalogueRow, RejectedRow, Row

# A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def rows(*values: AttributeValue | None) -> list[Row]:
    """One row for each value of the attribute x; None: the row has none."""
    return [
        CatalogueRow(line, f"i{line}", "", ("a.jpg",), {} if value is None else {"x": value})
        for line, value in enumerate(values, start=2)
    ]


def type_of_text(*values: str | None) -> str | None:
    return infer_types(rows(*values), values_are_text=True).get("x")


@pytest.mark.parametrize("number", ["0", "-1", "10", "0.5", "-0.25", "10.50", "4006381333931", "9007199254740992"])
def test_plain_decimal_numbers_are_numbers(number: str) -> None:
    assert type_of_text(None, number, "1") == "number"
    assert convert("x", number, "number") == Decimal(number)


@pytest.mark.parametrize(
    "text",
    ["007", "00.5", "1e5", "nan", "inf", "-Infinity", "0x1F", "1,5", "1.", ".5", "+1", "1_000", "1 000", "--1", "-",
     "12€", "٣", "1\n", "9007199254740993", "123456789012345678901234567890"],
)  # fmt: skip
def test_what_only_resembles_a_number_stays_text_and_makes_its_column_text(text: str) -> None:
    assert type_of_text("1", text, "2") == "string"
    assert type_of_text(text, "1", "2") == "string"
    with pytest.raises(AttributeTypeMismatch):
        convert("x", text, "number")


def test_true_and_false_in_any_case_are_booleans() -> None:
    assert type_of_text("true", "FALSE", "True", None) == "boolean"
    assert [convert("x", text, "boolean") for text in ("true", "FALSE")] == [True, False]


@pytest.mark.parametrize("values", [("true", "1"), ("1", "true"), ("true", "yes"), ("no", "true"), ("1", "true", "1")])
def test_a_column_of_several_kinds_of_text_is_text(values: tuple[str, ...]) -> None:
    assert type_of_text(*values) == "string"


def test_a_column_without_values_has_no_type() -> None:
    assert type_of_text(None, None) is None


def test_text_columns_convert_to_what_was_inferred() -> None:
    table = rows("1", "2.5", None)
    converted = list(convert_rows(table, infer_types(table, values_are_text=True)))
    values = [row.attributes.get("x") for row in converted if isinstance(row, CatalogueRow)]
    assert values == [1, 2.5, None]
    assert [type(value) for value in values] == [int, float, type(None)]


def test_the_catalogues_types_outrank_the_file() -> None:
    types = infer_types(rows("12", "13"), {"x": "string", "y": "boolean"}, values_are_text=True)
    assert types == {"x": "string", "y": "boolean"}
    (row, _) = convert_rows(rows("12", "13"), types)
    assert isinstance(row, CatalogueRow)
    assert row.attributes == {"x": "12"}


def test_a_value_that_the_catalogues_type_excludes_costs_its_row_alone() -> None:
    table = rows("12", "cheap", "13")
    converted = list(convert_rows(table, infer_types(table, {"x": "number"}, values_are_text=True)))
    assert [type(row) for row in converted] == [CatalogueRow, RejectedRow, CatalogueRow]
    rejected = converted[1]
    assert isinstance(rejected, RejectedRow)
    assert (rejected.line, rejected.item_id, rejected.error.code) == (3, "i3", "attribute_type_mismatch")
    assert "'x' is 'cheap', but it is a number" in rejected.error.detail
    assert rejected.error.members == {"attribute": "x", "expected": "number"}


@pytest.mark.parametrize(
    ("first", "expected"), [("S", "string"), (1, "number"), (0.5, "number"), (True, "boolean"), ("1", "string")]
)
def test_of_typed_values_the_first_decides(first: AttributeValue, expected: str) -> None:
    assert infer_types(rows(None, first, "M", 42, False), values_are_text=False) == {"x": expected}


@pytest.mark.parametrize(
    ("value", "expected", "result"),
    [
        (42, "string", "42"),
        (0.5, "string", "0.5"),
        (True, "string", "true"),
        ("12.50", "number", 12.5),
        ("False", "boolean", False),
        (True, "boolean", True),
        (7, "number", 7),
    ],
)
def test_a_value_is_converted_where_nothing_is_lost(
    value: AttributeValue, expected: str, result: AttributeValue
) -> None:
    converted = convert("x", value, expected)
    assert converted == result
    assert type(converted) is type(result)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("M", "number"), (True, "number"), (1, "boolean"), (0, "boolean"), ("yes", "boolean"), ("true", "number")],
)
def test_a_value_is_refused_where_it_would_be_a_guess(value: AttributeValue, expected: str) -> None:
    with pytest.raises(AttributeTypeMismatch, match=f"a {expected}"):
        convert("x", value, expected)


def test_rejected_rows_pass_through_and_decide_nothing() -> None:
    rejected = RejectedRow(2, None, RowInvalid("No."))
    assert infer_types([rejected], values_are_text=True) == {}
    assert list(convert_rows([rejected], {})) == [rejected]


texts = st.text(max_size=6) | st.integers().map(str) | st.floats().map(repr) | st.sampled_from(["true", "False", "01"])


@patient
@given(st.lists(texts.filter(bool), min_size=1, max_size=6))
def test_an_inferred_type_fits_every_value_of_the_file(values: list[str]) -> None:
    table = rows(*values)
    converted = list(convert_rows(table, infer_types(table, values_are_text=True)))
    assert all(isinstance(row, CatalogueRow) for row in converted)
    assert len({type(row.attributes["x"]) for row in converted if isinstance(row, CatalogueRow)} - {int}) <= 1
