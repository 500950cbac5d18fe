"""JSON of clients that can be kept and sent on."""

import json
from typing import Any


def parse_strict(text: str | bytes) -> Any:
    """Return the JSON value of a text.

    Raises:
        ValueError: also for NaN, infinity and half a character, which Python's parser takes but no answer could
            repeat, and for nesting without end.
    """
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value
