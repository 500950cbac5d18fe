"""Text as numbered lines of bounded length: neither a stray byte nor a missing line end stops an import."""

import codecs
import io
import itertools
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from shared.errors import ImportFileBroken, InvalidParameter, RowEncoding

MAX_ROW_CHARACTERS = 1024 * 1024

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UNDECODED = re.compile(r"[\ud800-\udfff]")


def choose_encoding(file: BinaryIO, stated: str) -> str:
    """Return the encoding to read with: the one of the file's byte order mark, else the stated one.

    Raises:
        InvalidParameter: if there is no text encoding of the stated name.
    """
    try:
        "a".encode(stated)
    except (LookupError, ValueError):
        raise InvalidParameter(
            f"There is no text encoding {stated[:64]!r}. Usual ones are utf-8, latin-1, cp1252 and utf-16."
        ) from None
    file.seek(0)
    head = file.read(4)
    return next((encoding for mark, encoding in _MARKS if head.startswith(mark)), stated)


def text_lines(file: BinaryIO, encoding: str) -> Iterator[tuple[int, str]]:
    """Read the file from its start, in physical lines: up to LF, CR or CRLF, which stays.

    A byte that is no text becomes a surrogate, which `require_decoded` finds. Of a line that is longer than
    MAX_ROW_CHARACTERS one character more than that is returned; the rest is skipped.

    Yields:
        Line number, from 1, and text.

    Raises:
        ImportFileBroken: if the encoding doesn't tell where the next character begins after a bad one.
    """
    file.seek(0)
    text = io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape", newline="")
    try:
        for number in itertools.count(1):
            line = _read(text, encoding, number)
            if not line:
                return
            yield number, line
            while is_overlong(line) and line[-1] not in "\r\n":
                line = _read(text, encoding, number)
    finally:
        with suppress(ValueError):  # the caller may have closed the file by now
            text.detach()


def is_overlong(line: str) -> bool:
    """Whether `text_lines` has cut the line."""
    return len(line) > MAX_ROW_CHARACTERS


def require_decoded(text: str, encoding: str) -> None:
    """Refuse a text with bytes that are not of the encoding.

    Raises:
        RowEncoding: naming the byte and the remedy.
    """
    if text.isascii() or not (found := _UNDECODED.search(text)):
        return
    code = ord(found.group())
    what = f"the byte 0x{code - 0xDC00:02X}" if 0xDC80 <= code <= 0xDCFF else "half a character"
    before = text[max(0, found.start() - 20) : found.start()]
    name = encoding.removesuffix("-sig").upper()
    raise RowEncoding(
        f"The row is not valid {name}: {what} after {before!r}. "
        "Save the file as UTF-8, or pass the encoding that it has, such as encoding=latin-1."
    )


def _read(text: io.TextIOWrapper, encoding: str, number: int) -> str:
    try:
        return text.readline(MAX_ROW_CHARACTERS + 1)
    except UnicodeError as error:
        raise ImportFileBroken(
            f"Near line {number} the file is not valid {encoding}: {error}. Save it as UTF-8, or pass its encoding."
        ) from None
