"""Bodies: JSON that can be kept and sent on, and multipart forms with exactly the files that an endpoint takes."""

from typing import Any

from flask import request
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.wsgi import LimitedStream

from shared.errors import ImageTooLarge, InvalidParameter, LookalikeError
from shared.strict_json import parse_strict

JSON_MAX_BYTES = 1024 * 1024
FORM_OVERHEAD_BYTES = 1024 * 1024


def is_multipart() -> bool:
    """Tell whether the request is a multipart form."""
    return request.mimetype == "multipart/form-data"


def receive_form(max_bytes: int, too_large: LookalikeError) -> None:
    """Receive the form; what is too large is refused before it is received, or as soon as it shows.

    Args:
        max_bytes: most bytes of all its files together.
        too_large: how a larger form is refused.
    """
    limit = max_bytes + FORM_OVERHEAD_BYTES
    request.max_content_length = limit
    try:
        request.form  # noqa: B018 - reading it receives the whole form, files included
    except RequestEntityTooLarge:
        if _is_longer_than(limit):
            raise too_large from None
        raise  # one of its text fields is


def receive_photos(max_bytes: int, at_most: int = 1) -> None:
    """Receive a form of up to `at_most` photos of `max_bytes` each.

    Raises:
        ImageTooLarge: if it is larger.
    """
    photos = "a photo" if at_most == 1 else f"{at_most} photos"
    detail = f"The form has more bytes than {photos} may have: at most {max_bytes:,} are accepted for each. "
    remedy = "Scale the photo down or save it as JPEG with stronger compression."
    receive_form(at_most * max_bytes, ImageTooLarge(detail + remedy, max_bytes=max_bytes))


def _is_longer_than(limit: int) -> bool:
    if request.content_length is not None:
        return request.content_length > limit
    return isinstance(request.stream, LimitedStream) and request.stream.is_exhausted  # sent in chunks


def form_fields(json_fields: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the text fields of the form; empty ones count as left out, `json_fields` are parsed.

    Raises:
        InvalidParameter: if a JSON field doesn't parse.
    """
    fields: dict[str, Any] = {name: value for name, value in request.form.items() if value != ""}
    for name in json_fields:
        if name in fields:
            try:
                fields[name] = parse_strict(fields[name])
            except ValueError as error:
                raise InvalidParameter(f"Field {name!r} must hold JSON: {error}.", parameter=name) from None
    return fields


def json_body() -> dict[str, Any]:
    """Return the request's JSON object.

    Raises:
        InvalidParameter: if the body is not one.
    """
    if not request.is_json:
        raise InvalidParameter("Send a JSON object with Content-Type: application/json, or a multipart form.")
    try:
        body = parse_strict(request.get_data(cache=False))
    except ValueError as error:
        raise InvalidParameter(f"The body must be JSON: {error}.") from None
    if not isinstance(body, dict):
        raise InvalidParameter("The body must be a JSON object.")
    return body


def uploaded_files(name: str, at_most: int = 1) -> list[FileStorage]:
    """Return the files sent under `name`.

    Raises:
        InvalidParameter: if there is none, or more than wanted, or a file under another name.
    """
    others = sorted(set(request.files) - {name})
    if others:
        raise InvalidParameter(f"Send the file as field {name!r}, not {others[0]!r}.", parameter=others[0])
    files = request.files.getlist(name)
    if not files:
        raise InvalidParameter(f"The form has no file field {name!r}.", parameter=name)
    if len(files) > at_most:
        raise InvalidParameter(f"Field {name!r} may come {at_most} times at most, not {len(files)}.", parameter=name)
    return files
