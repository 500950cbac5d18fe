"""Attributes of items: what their names and values may be, however they come in."""

import math
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

AttributeValue = str | bool | int | float

# What filters are combined with; an attribute of that name could not be filtered by.
FILTER_WORDS = ("and", "or", "not")
# Beyond it numbers that differ become equal: the catalogue and JSON readers hold them as 64-bit floats.
MAX_INTEGER = 2**53
# Filters compare this many characters of a text: PostgreSQL's indexes hold 2,700 bytes, and no filter needs more.
COMPARED_CHARACTERS = 500


def without_nul(text: str) -> str:
    """Return the text, which PostgreSQL can only keep without NUL.

    Raises:
        ValueError: if it holds one.
    """
    if "\0" in text:
        raise ValueError("text must not hold NUL")
    return text


def compared_text(text: str) -> str:
    """Return the part of a text that filters compare."""
    return text[:COMPARED_CHARACTERS]


def _storable(value: AttributeValue) -> AttributeValue:
    if isinstance(value, str):
        return without_nul(value)
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ValueError("the number is too large to stay exact; send it as text")
    if not math.isfinite(value):
        raise ValueError("the number must be finite")
    return value


def _filterable(name: str) -> str:
    if name in FILTER_WORDS:
        raise ValueError(f"no attribute may be called {name!r}, since filters are combined with that word")
    return name


AttributeName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_ -]{0,63}$"), AfterValidator(_filterable)
]
StorableValue = Annotated[AttributeValue, AfterValidator(_storable)]
StorableText = Annotated[str, AfterValidator(without_nul)]
