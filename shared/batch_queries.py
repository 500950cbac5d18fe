"""The queries of a batch search: NDJSON, one search a line, read line by line whatever the file's size."""

import codecs
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from pydantic import ValidationError

from shared.errors import InvalidParameter
from shared.schemas import SearchLine
from shared.strict_json import parse_strict

LINE_MAX_BYTES = 1024 * 1024  # as much as the JSON of a single search may have


@dataclass(frozen=True)
class QueryText:
    """A line as it was sent.

    Attributes:
        line: its number, from 1; blank lines count.
        offset: where it begins in the file.
        text: without its end; more than LINE_MAX_BYTES where it was cut, since it is longer.
    """

    line: int
    offset: int
    text: bytes


def read_lines(file: BinaryIO, line: int = 1) -> Iterator[QueryText]:
    """Yield the lines that are not blank, from where the file stands.

    Args:
        file: of NDJSON in UTF-8.
        line: the number of the line at which it stands.
    """
    offset = file.tell()
    while part := file.readline(LINE_MAX_BYTES + 1):
        begin, text = offset, part
        offset += len(part)
        while len(part) > LINE_MAX_BYTES and not part.endswith(b"\n"):  # the rest of a line that is too long
            part = file.readline(LINE_MAX_BYTES + 1)
            offset += len(part)
        if begin == 0:
            text = text.removeprefix(codecs.BOM_UTF8)
        if not text.isspace() and text:
            yield QueryText(line, begin, text.rstrip(b"\r\n"))
        line += 1


def parse_object(text: bytes) -> dict[str, Any]:
    """Return the JSON object of a line.

    Raises:
        InvalidParameter: if it holds none.
    """
    if len(text) > LINE_MAX_BYTES:
        raise InvalidParameter(f"The line is longer than {LINE_MAX_BYTES:,} bytes. Write one JSON object a line.")
    try:
        value = parse_strict(text)
    except ValueError as error:
        raise InvalidParameter(f"The line is not JSON: {error}. Write one whole object a line.") from None
    if not isinstance(value, dict):
        raise InvalidParameter('The line must be a JSON object such as {"item_id": "a"}.')
    return value


def parse_line(fields: Mapping[str, Any], terms: Mapping[str, Any]) -> SearchLine:
    """Return the search that a line asks for.

    Args:
        fields: of its JSON object.
        terms: of those that all lines share; a line's own count more.

    Raises:
        InvalidParameter: naming each field that is wrong.
    """
    try:
        return SearchLine.model_validate({**terms, **fields})
    except ValidationError as error:
        raise InvalidParameter(_what_is_wrong(error)) from None


def _what_is_wrong(error: ValidationError) -> str:
    found = []
    for entry in error.errors(include_url=False, include_context=False, include_input=False):
        where = ".".join(str(part) for part in entry["loc"])
        message = entry["msg"].removeprefix("Value error, ")
        found.append(f"{where}: {message}" if where else message)
    return "; ".join(found)
