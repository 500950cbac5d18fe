"""Rows of a catalogue file: what was read, and what becomes of it."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from shared.attributes import MAX_INTEGER, AttributeValue
from shared.errors import ImageMissing, InvalidRow, RowInvalid
from shared.schemas import ItemId
from worker.imports.columns import Columns

MAX_IMAGES = 16
MAX_ATTRIBUTES = 100
MAX_TITLE_CHARACTERS = 1000
MAX_REFERENCE_CHARACTERS = 2048

_ITEM_ID: TypeAdapter[str] = TypeAdapter(ItemId)
_UNSTORABLE = re.compile(r"[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Record:
    """The values of one row under the file's own column names, not checked yet."""

    line: int
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class CatalogueRow:
    """An item as a row describes it.

    Attributes:
        line: line of the file on which the row begins (row number in a Parquet file), from 1.
        images: one or more references: http(s) URLs or relative paths.
    """

    line: int
    item_id: str
    title: str
    images: tuple[str, ...]
    attributes: dict[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that is left out, and why; `item_id` where the row has a valid one."""

    line: int
    item_id: str | None
    error: InvalidRow


Row = CatalogueRow | RejectedRow


def read_row(record: Record, columns: Columns) -> Row:
    """Make an item of a record.

    Text is trimmed. Empty text, null and NaN are absent values. Whole numbers as ids or titles become text.
    """
    item_id = None
    try:
        item_id = _read_id(record.fields.get(columns.id), columns.id)
        return CatalogueRow(
            record.line,
            item_id,
            _read_title(record.fields.get(columns.title), columns.title),
            _read_images(record.fields.get(columns.image), columns.image),
            _read_attributes(record.fields, columns),
        )
    except InvalidRow as error:
        return RejectedRow(record.line, item_id, error)


def shown(value: object) -> str:
    """Return the value for an error message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _read_id(value: object, name: str) -> str:
    scalar = _scalar(value, name)
    if scalar is None:
        raise RowInvalid(f"The row has no id in column {name!r}. Every item needs one of its own.")
    text = _number_text(scalar)
    try:
        return _ITEM_ID.validate_python(text)
    except ValidationError:
        raise RowInvalid(
            f"{shown(scalar)} can't be an id: it takes 1 to 128 letters without accents, digits and . _ : ~ @ + -, "
            "beginning with a letter or digit."
        ) from None


def _read_title(value: object, name: str) -> str:
    scalar = _scalar(value, name)
    title = "" if scalar is None else str(_number_text(scalar))
    if len(title) > MAX_TITLE_CHARACTERS:
        raise RowInvalid(f"The title has {len(title)} characters; it may have {MAX_TITLE_CHARACTERS}. Shorten it.")
    return title


def _read_images(value: object, name: str) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split("|")
    elif value is not None and not isinstance(value, list):
        raise RowInvalid(f"{name!r} is {shown(value)}, but images are named by text, or by a list of texts.")
    references = []
    for entry in value or ():
        reference = _scalar(entry, name)
        if reference is not None and not isinstance(reference, str):
            raise RowInvalid(f"{name!r} holds {shown(entry)}, but an image is named by text: a path or an http(s) URL.")
        if reference:
            references.append(reference)
    if not references:
        raise ImageMissing(f"The row names no image in column {name!r}. Give it a relative path or an http(s) URL.")
    if len(references) > MAX_IMAGES:
        raise RowInvalid(f"The row names {len(references)} images; an item may have {MAX_IMAGES}. Leave some out.")
    longest = max(references, key=len)
    if len(longest) > MAX_REFERENCE_CHARACTERS:
        raise RowInvalid(
            f"The image {shown(longest)} has a name of {len(longest)} characters; "
            f"it may have {MAX_REFERENCE_CHARACTERS}. Is the column {name!r} the right one?"
        )
    return tuple(references)


def _read_attributes(fields: Mapping[str, object], columns: Columns) -> dict[str, AttributeValue]:
    attributes = {}
    for name, value in fields.items():
        if columns.is_attribute(name) and (scalar := _scalar(value, name)) is not None:
            attributes[name] = scalar
    if len(attributes) > MAX_ATTRIBUTES:
        raise RowInvalid(
            f"The row has {len(attributes)} attributes; an item may have {MAX_ATTRIBUTES}. Leave out columns that "
            "nobody filters by."
        )
    return attributes


def _scalar(value: object, name: str) -> AttributeValue | None:
    if value is None:
        return None
    if isinstance(value, str):
        if _UNSTORABLE.search(value):
            raise RowInvalid(f"{name!r} is {shown(value)}: it holds NUL or half a character. Remove it.")
        return value.strip() or None
    if isinstance(value, float) and not math.isfinite(value):
        raise RowInvalid(f"{name!r} is {value}, which is no number. Leave it out, or write null.")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise RowInvalid(f"{name!r} is {shown(value)}, too large to stay exact. Write it as text.")
    if isinstance(value, bool | int | float):
        return value
    kind = "a list" if isinstance(value, list) else "an object"
    raise RowInvalid(f"{name!r} is {kind}: {shown(value)}. Write one text, number, true or false instead.")


def _number_text(value: AttributeValue) -> AttributeValue:
    # pandas turns whole numbers into floats where a value of the column is missing
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, bool) else str(value)
