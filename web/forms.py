"""Multipart forms: text fields that hold JSON, and exactly the files that an endpoint takes."""

import json
from typing import Any

from flask import request
from werkzeug.datastructures import FileStorage

from shared.errors import InvalidParameter


def is_multipart() -> bool:
    """Tell whether the request is a multipart form."""
    return request.mimetype == "multipart/form-data"


def form_fields(json_fields: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the text fields of the form; empty ones count as left out, `json_fields` are parsed.

    Raises:
        InvalidParameter: if a JSON field doesn't parse.
    """
    fields: dict[str, Any] = {name: value for name, value in request.form.items() if value != ""}
    for name in json_fields:
        if name in fields:
            try:
                fields[name] = json.loads(fields[name])
            except ValueError as error:
                raise InvalidParameter(f"Field {name!r} must hold JSON: {error}.", parameter=name) from None
    return fields


def uploaded_files(name: str) -> list[FileStorage]:
    """Return the files sent under `name`.

    Raises:
        InvalidParameter: if there is none, or a file under another name.
    """
    others = sorted(set(request.files) - {name})
    if others:
        raise InvalidParameter(f"Send the file as field {name!r}, not {others[0]!r}.", parameter=others[0])
    files = request.files.getlist(name)
    if not files:
        raise InvalidParameter(f"The form has no file field {name!r}.", parameter=name)
    return files
