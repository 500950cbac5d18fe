"""What the files of images are made of: told apart without decoding, in files that may be damaged or hostile."""

import re
from collections.abc import Iterator

JPEG_START, JPEG_END, JPEG_SCAN = 0xD8, 0xD9, 0xDA
GIF_EXTENSION, GIF_PICTURE, GIF_END = b"!", b",", b";"
PNG_PIXELS = {b"IDAT", b"fdAT"}

# Within the coded pixels of a JPEG, 0xff is followed by zero or is a restart: neither begins a segment.
_JPEG_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
_GIF_BLOCK = re.compile(rb"[!,;]")


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment behind the start of the image, its end included.

    What lies between one and the next is coded pixels, once there was a scan, and junk before that. Behind the end of
    the image nothing is read: decoders stop there, and cameras append further pictures and films.
    """
    at = 2
    while match := _JPEG_MARKER.search(data, at):
        start, marker = match.start(), data[match.start() + 1]
        has_length = marker not in (JPEG_START, JPEG_END)
        at = start + 2 + (int.from_bytes(data[start + 2 : start + 4], "big") if has_length else 0)
        yield marker, start, min(at, len(data))
        if marker == JPEG_END:
            return


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of each chunk up to the one that ends the image; the last may be cut."""
    at = 8
    while at + 8 <= len(data):
        kind, start = data[at + 4 : at + 8], at
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        yield kind, start, min(at, len(data))
        if kind == b"IEND":
            return


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of each chunk, within the size that the file says it has."""
    at, size = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while at + 8 <= size:
        kind, start, length = data[at : at + 4], at, int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
        yield kind, start, min(at, size)


def gif_blocks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of each extension and picture, and of the end of the file.

    Raises:
        IndexError: if the file ends within a head.
    """
    at = gif_first_block(data)
    while match := _GIF_BLOCK.search(data, at):
        kind, start = match[0], match.start()
        at = start + 1
        if kind != GIF_END:
            within = start + 2 if kind == GIF_EXTENSION else start + 11 + _gif_colours(data[start + 9])
            *_, at = gif_sub_blocks(data, within)
        yield kind, start, min(at, len(data))
        if kind == GIF_END:
            return


def gif_first_block(data: bytes) -> int:
    """Return where the head of a GIF and its colours end."""
    return 13 + _gif_colours(data[10])


def gif_sub_blocks(data: bytes, at: int) -> Iterator[int]:
    """Yield where each of a chain of sub-blocks ends, the empty one at its end included."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
        yield at
    yield at + 1


def _gif_colours(flags: int) -> int:
    """Return how many bytes the colour table takes that a head announces."""
    return 3 << (flags % 8 + 1) if flags & 0x80 else 0


def read_singly(name: str, data: bytes) -> Iterator[object]:
    """Yield once for each thing that Pillow reads in a step of its own, in Python, before it decodes or after it.

    These are segments before the first scan and each byte of junk between them, chunks that hold no pixels, and
    sub-blocks and junk before the first picture. Other formats are read in C.
    """
    if name == "JPEG":
        behind = 2
        for marker, start, end in jpeg_segments(data):
            yield from range(start - behind)
            yield marker
            behind = end
            if marker == JPEG_SCAN:
                return
        yield from range(len(data) - behind)
    elif name == "PNG":
        yield from (kind for kind, _, _ in png_chunks(data) if kind not in PNG_PIXELS)
    elif name == "GIF" and len(data) > 10:
        at = gif_first_block(data)
        while match := _GIF_BLOCK.search(data, at):
            yield from range(match.start() - at)
            at = match.start() + 1
            if match[0] != GIF_EXTENSION:
                return
            for end in gif_sub_blocks(data, at + 1):
                yield end
                at = end
        yield from range(len(data) - at)


def count_scans(data: bytes) -> int:
    """Return how often a JPEG goes over its pixels: once in most, about ten times in a progressive one."""
    return sum(marker == JPEG_SCAN for marker, _, _ in jpeg_segments(data))
