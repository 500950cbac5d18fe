"""The workers' application with a decoder that kills its process at some photos, as a fault in a C library would."""

import os
from typing import Any

from shared import image_header
from tests.e2e.pictures import POISON
from worker import decode
from worker.app import app

__all__ = ["app"]

_open_image = image_header.open_image


def open_image(data: bytes, **limits: Any) -> Any:
    """Open a photo, unless it is one of those."""
    if POISON in data:
        os.abort()
    return _open_image(data, **limits)


decode.open_image = open_image  # type: ignore[attr-defined]  # the name by which it calls it
