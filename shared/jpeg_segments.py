"""The segments of a JPEG file, told apart without decoding any."""

import re
from collections.abc import Iterator

START, END, SCAN, COMMENT = 0xD8, 0xD9, 0xDA, 0xFE
APPLICATION = range(0xE0, 0xF0)

# Within the coded pixels, 0xff is followed by zero or is a restart: neither begins a segment.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment behind the start of the image, its end included.

    What lies between one and the next is coded pixels, once there was a scan, and junk before that. Behind the end of
    the image nothing is read: decoders stop there, and cameras append further pictures and films.

    Args:
        data: a file that begins like a JPEG. It may be damaged.
    """
    at = 2
    while match := _MARKER.search(data, at):
        start, marker = match.start(), data[match.start() + 1]
        has_length = marker not in (START, END)
        at = start + 2 + (int.from_bytes(data[start + 2 : start + 4], "big") if has_length else 0)
        yield marker, start, min(at, len(data))
        if marker == END:
            return


def count_scans(data: bytes) -> int:
    """Return how often the file goes over its pixels: once in most, about ten times in a progressive one."""
    return sum(marker == SCAN for marker, _, _ in segments(data))
