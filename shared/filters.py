"""Filters: from the client's JSON to a condition on items, typed by the catalogue.

Grammar: an object's members are all required. A member is a field with a value (`{"colour": "red"}`), a field with
operators (`{"price": {"gte": 10, "lt": 50}}`), or `and` / `or` with a list of filters, or `not` with one.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, and_, exists, false, not_, or_, true

from shared.attributes import FILTER_WORDS, compared_text
from shared.errors import FilterTypeMismatch, InvalidFilter, UnknownFilterField
from shared.tables import ItemAttributeRow, ItemRow

MAX_DEPTH = 8
MAX_CONDITIONS = 64
MAX_VALUES = 1000

Column = ColumnElement[Any]
OPERATORS: dict[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "eq": lambda column, value: column == value,
    "ne": lambda column, value: column != value,
    "in": lambda column, values: column.in_(values),
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
}
RANGES = ("gt", "gte", "lt", "lte")
_TYPE_WORDS = {"string": "a text", "number": "a number", "boolean": "true or false"}


@dataclass(frozen=True)
class Comparison:
    """A field against a value. An item without the field meets none, not even `ne`: unknown is not "other".

    Attributes:
        name: of the field.
        operator: one of OPERATORS.
        value: text, or number (booleans are 0 and 1), as the catalogue compares them; a list of these for `in`.
    """

    name: str
    operator: str
    value: Any


@dataclass(frozen=True)
class AllOf:
    """Every part; met by every item where there is none."""

    parts: tuple["Condition", ...]


@dataclass(frozen=True)
class AnyOf:
    """One part at least."""

    parts: tuple["Condition", ...]


@dataclass(frozen=True)
class NotMet:
    """What does not meet the part, items without its field among them."""

    part: "Condition"


Condition: TypeAlias = Comparison | AllOf | AnyOf | NotMet


def parse_filter(condition: Mapping[str, Any], types: Mapping[str, str]) -> Condition:
    """Check a filter and return what it says.

    Args:
        condition: the client's JSON object; the empty object lets every item through.
        types: "string", "number" or "boolean" of each field of the catalogue.

    Raises:
        InvalidFilter: if it is not of the grammar, or too large.
        UnknownFilterField: if it names a field that no item has; lists the known ones.
        FilterTypeMismatch: if a value has another type than its field.
    """
    return _Parser(types).parse(condition, depth=1)


def compile_filter(condition: Mapping[str, Any], types: Mapping[str, str]) -> ColumnElement[bool]:
    """Turn a filter into a condition on ItemRow; arguments and errors are those of `parse_filter`."""
    return _to_sql(parse_filter(condition, types), types)


def _to_sql(condition: Condition, types: Mapping[str, str]) -> ColumnElement[bool]:
    if isinstance(condition, AllOf):
        return and_(true(), *(_to_sql(part, types) for part in condition.parts))
    if isinstance(condition, AnyOf):
        return or_(false(), *(_to_sql(part, types) for part in condition.parts))
    if isinstance(condition, NotMet):
        return not_(_to_sql(condition.part, types))
    column = ItemAttributeRow.text_value if types[condition.name] == "string" else ItemAttributeRow.number_value
    return exists().where(
        ItemAttributeRow.item_id == ItemRow.id,
        ItemAttributeRow.name == condition.name,
        OPERATORS[condition.operator](column, condition.value),
    )


def check_field(name: str, types: Mapping[str, str]) -> None:
    """Refuse a field that no item has.

    Raises:
        UnknownFilterField: listing the known ones.
    """
    if name not in types:
        known = sorted(types)
        raise UnknownFilterField(
            f"No item has a field {name!r}. Known fields: {', '.join(known) or 'none yet'}.",
            field=name,
            known_fields=known,
        )


class _Parser:
    def __init__(self, types: Mapping[str, str]) -> None:
        self._types = types
        self._conditions = 0

    def parse(self, condition: Any, depth: int) -> Condition:
        if not isinstance(condition, Mapping):
            raise InvalidFilter(f'A filter is an object such as {{"colour": "red"}}, not {condition!r}.')
        if depth > MAX_DEPTH:
            raise InvalidFilter(f"A filter may be nested {MAX_DEPTH} deep at most.")
        return AllOf(tuple(self._member(name, value, depth) for name, value in condition.items()))

    def _member(self, name: str, value: Any, depth: int) -> Condition:
        if name == "not":
            return NotMet(self.parse(value, depth + 1))
        if name in FILTER_WORDS:
            if not isinstance(value, list) or not value:
                raise InvalidFilter(f"{name!r} takes a list of at least one filter.")
            parts = tuple(self.parse(part, depth + 1) for part in value)
            return AllOf(parts) if name == "and" else AnyOf(parts)
        return self._field(name, value)

    def _field(self, name: str, value: Any) -> Condition:
        check_field(name, self._types)
        operators = value if isinstance(value, Mapping) else {"eq": value}
        if not operators:
            raise InvalidFilter(f"{name!r} has no operator; use one of {', '.join(OPERATORS)}.")
        return AllOf(tuple(self._comparison(name, operator, operand) for operator, operand in operators.items()))

    def _comparison(self, name: str, operator: str, operand: Any) -> Comparison:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise InvalidFilter(f"A filter may have {MAX_CONDITIONS} conditions at most.")
        if operator not in OPERATORS:
            raise InvalidFilter(f"{name!r} has an unknown operator {operator!r}; use one of {', '.join(OPERATORS)}.")
        if operator in RANGES and self._types[name] == "boolean":
            raise FilterTypeMismatch(f"{name!r} is true or false; compare it with eq, ne or in.", field=name)
        if operator == "in":
            if not isinstance(operand, list) or not 1 <= len(operand) <= MAX_VALUES:
                raise InvalidFilter(f"'in' of {name!r} takes a list of 1 to {MAX_VALUES} values.")
            return Comparison(name, operator, [self._checked(name, entry) for entry in operand])
        return Comparison(name, operator, self._checked(name, operand))

    def _checked(self, name: str, value: Any) -> str | float:
        type_ = self._types[name]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = {"string": isinstance(value, str), "number": is_number, "boolean": isinstance(value, bool)}[type_]
        if not fits:
            raise FilterTypeMismatch(
                f"{name!r} is {_TYPE_WORDS[type_]} in this catalogue, but the filter has {value!r}.",
                field=name,
                expected=type_,
            )
        if isinstance(value, str):
            if "\0" in value:
                raise InvalidFilter(f"The value of {name!r} holds NUL, which no text of the catalogue does.")
            return compared_text(value)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):  # JSON's 1e999; nor has the catalogue any
            raise InvalidFilter(f"The value of {name!r} is too large for a number.")
        return number
