"""One type for each attribute: found in a first pass over the rows, applied in a second."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from shared.attributes import MAX_INTEGER, AttributeValue
from shared.errors import AttributeTypeMismatch
from worker.imports.rows import CatalogueRow, RejectedRow, Row, shown

AttributeType = Literal["string", "number", "boolean"]

# No leading zeros, no exponent: 007, 1e5, nan and zip codes stay text.
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,15})")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,15})\.[0-9]{1,100}")
_SPELLED_BOOLEANS = {"true": True, "false": False}


def infer_types(
    rows: Iterable[Row], known: Mapping[str, str] | None = None, *, values_are_text: bool
) -> dict[str, str]:
    """Find the type of each attribute in one pass.

    Where values are text (CSV), a number is an attribute whose every value is a plain decimal number, a boolean one
    whose every value is true or false in any case, and a string all else. Where values have types (NDJSON, Parquet),
    the type of the first value counts.

    Args:
        rows: rejected ones are passed over.
        known: types of the catalogue, which stay as they are.
        values_are_text: as the reader says.

    Returns:
        The types of all attributes of the file and the catalogue.
    """
    known = known or {}
    types = dict(known)
    for row in rows:
        if isinstance(row, RejectedRow):
            continue
        for name, value in row.attributes.items():
            if name in known:
                continue
            found = _spelled_type(value) if values_are_text else _type_of(value)
            if types.setdefault(name, found) != found and values_are_text:
                types[name] = "string"
    return types


def convert_rows(rows: Iterable[Row], types: Mapping[str, str]) -> Iterator[Row]:
    """Give each value the type of its attribute; a row with one that can't have it is rejected."""
    for row in rows:
        if isinstance(row, CatalogueRow):
            try:
                attributes = {name: convert(name, value, types[name]) for name, value in row.attributes.items()}
            except AttributeTypeMismatch as error:
                yield RejectedRow(row.line, row.item_id, error)
                continue
            row = CatalogueRow(row.line, row.item_id, row.title, row.images, attributes)
        yield row


def convert(name: str, value: AttributeValue, expected: str) -> AttributeValue:
    """Return the value in the expected type, if that loses nothing.

    An owner who exports sizes as "S", "M" and 42 means the text 42, and one who exports a price as "12.50" means the
    number, whatever the file's format. So a string takes numbers and booleans as JSON spells them; a number takes
    text that is a plain decimal number, and a boolean the texts true and false. Nothing else is converted.

    Raises:
        AttributeTypeMismatch: naming the value and the expected type.

    >>> convert("size", 42, "string"), convert("price", "12.50", "number")
    ('42', 12.5)
    """
    actual = _type_of(value)
    if actual == expected:
        return value
    if expected == "string":
        return str(value).lower() if actual == "boolean" else repr(value)
    if isinstance(value, str) and _spelled_type(value) == expected:
        return _SPELLED_BOOLEANS[value.lower()] if expected == "boolean" else _number(value)
    raise AttributeTypeMismatch(
        f"The attribute {name!r} is {shown(value)}, but it is a {expected} in the other rows or the catalogue. "
        "Correct the value, or rename the column.",
        attribute=name,
        expected=expected,
    )


def _type_of(value: AttributeValue) -> AttributeType:
    if isinstance(value, str):
        return "string"
    return "boolean" if isinstance(value, bool) else "number"


def _spelled_type(value: AttributeValue) -> AttributeType:
    if not isinstance(value, str):
        return _type_of(value)
    if value.lower() in _SPELLED_BOOLEANS:
        return "boolean"
    if _DECIMAL.fullmatch(value) or (_INTEGER.fullmatch(value) and abs(int(value)) <= MAX_INTEGER):
        return "number"
    return "string"


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)
