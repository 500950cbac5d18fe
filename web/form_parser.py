"""Small multipart forms in one piece.

werkzeug's parser takes bodies of any size as they come, and compiles two regular expressions for each boundary; every
client draws a new boundary for every request, so that these take longer than all else of a small form. Here a form
that is small and has the shape that clients send is split at its boundary; any other goes to werkzeug.
"""

from io import BytesIO
from typing import IO

from flask import Request
from werkzeug.datastructures import FileStorage, Headers, MultiDict
from werkzeug.formparser import FormDataParser
from werkzeug.http import parse_options_header

SMALL_BYTES = 1024 * 1024
FIELD_MAX_BYTES = 64 * 1024
MAX_PARTS = 50
UTF8_TYPES = ("text/plain", "text/plain; charset=utf-8", "text/plain;charset=utf-8", "application/json")

Parsed = tuple[IO[bytes], "MultiDict[str, str]", "MultiDict[str, FileStorage]"]


class SmallFormParser(FormDataParser):
    """Reads small forms in one piece, and others as werkzeug does."""

    def parse(
        self,
        stream: IO[bytes],
        mimetype: str,
        content_length: int | None,
        options: dict[str, str] | None = None,
    ) -> Parsed:
        """Return the stream, the text fields and the files of a body."""
        boundary = (options or {}).get("boundary", "")
        is_small = content_length is not None and content_length <= SMALL_BYTES
        if mimetype != "multipart/form-data" or not is_small or not boundary.isascii() or not boundary:
            return super().parse(stream, mimetype, content_length, options)
        body = stream.read()
        parts = split_form(body, boundary.encode())
        if parts is None:
            return super().parse(BytesIO(body), mimetype, content_length, options)
        form, files = parts
        return stream, form, files


class FormRequest(Request):
    """A request whose forms are read so."""

    form_data_parser_class = SmallFormParser


def split_form(body: bytes, boundary: bytes) -> "tuple[MultiDict[str, str], MultiDict[str, FileStorage]] | None":
    """Return the text fields and the files of a form, or None if it takes more to understand it."""
    edge = b"--" + boundary
    # Each part is: the end of the line of its edge, its headers, a blank line, its content.
    first, *parts = (b"\r\n" + body).split(b"\r\n" + edge, MAX_PARTS + 1)
    if first or len(parts) < 2 or body.count(edge) != len(parts) or parts.pop() not in (b"--\r\n", b"--"):
        return None
    form: MultiDict[str, str] = MultiDict()
    files: MultiDict[str, FileStorage] = MultiDict()
    for part in parts:
        head, blank, content = part.partition(b"\r\n\r\n")
        headers = _headers(head) if blank else None
        if headers is None:
            return None
        kind, options = parse_options_header(headers.get("Content-Disposition"))
        name, filename = options.get("name"), options.get("filename")
        if kind != "form-data" or name is None:
            return None
        if filename is not None:
            files.add(name, FileStorage(BytesIO(content), filename, name, headers=headers))
        elif len(content) > FIELD_MAX_BYTES or not _is_utf8(headers):
            return None
        else:
            form.add(name, content.decode("utf-8", "replace"))
    return form, files


def _is_utf8(headers: Headers) -> bool:
    return "Content-Type" not in headers or headers["Content-Type"].lower() in UTF8_TYPES


def _headers(head: bytes) -> Headers | None:
    """Return the headers of a part; `head` begins with the end of the line before them."""
    empty, *lines = head.split(b"\r\n")
    headers = Headers()
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or line[:1].isspace() or b"\n" in line or b"\r" in line or not line.isascii():
            return None
        headers.add(name.decode().strip(" \t"), value.decode().strip(" \t"))
    return None if empty or not lines else headers
