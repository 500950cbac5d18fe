"""Blanking what the file of an AVIF tells besides the picture.

An AVIF names its parts by their place in the file, so nothing can be taken out without moving the rest: EXIF, XMP and
boxes that are not of the picture are overwritten where they are. The boxes are those of ISO/IEC 14496-12.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_OF_PICTURE = {b"ftyp", b"meta", b"moov", b"mdat"}
_CONTAINERS = {b"moov", b"trak"}
_ABOUT_PICTURE = {b"udta", b"uuid", b"free", b"skip"}

# An EXIF item begins with the place of its TIFF; the TIFF has no entry.
_NO_EXIF = b"\0\0\0\0" + b"MM\0*\0\0\0\x08" + b"\0\0" + b"\0\0\0\0"
_FILLERS: dict[bytes, tuple[bytes, bytes]] = {
    b"Exif": (_NO_EXIF, b"\0"),
    b"mime": (b"", b" "),  # XMP
    b"uri ": (b"", b"\0"),
}
"""Kind of an item to what it begins with and is filled up with."""


@dataclass(frozen=True, slots=True)
class _Box:
    kind: bytes
    start: int
    body: int
    end: int


@dataclass
class _Numbers:
    """Reads big-endian numbers one after the other."""

    data: bytes
    at: int
    end: int

    def next(self, size: int) -> int:
        self.at += size
        if self.at > self.end:
            raise ValueError("a box ends too early")
        return int.from_bytes(self.data[self.at - size : self.at], "big")


def blank_metadata(data: bytes) -> bytes:
    """Return an AVIF with EXIF, XMP and foreign boxes overwritten, and without what follows its last box.

    Raises:
        ValueError: if its boxes say where metadata is, and it can't be there.
    """
    blanked = bytearray(data)
    end = 0
    for box in _boxes(data, 0, len(data)):
        if box.kind in _OF_PICTURE:
            _blank_below(data, blanked, box)
        else:
            _free(blanked, box)
        end = box.end
    return bytes(blanked[:end])


def _boxes(data: bytes, at: int, end: int) -> Iterator[_Box]:
    """Yield the boxes of a part of the file, up to the first that can't be one."""
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        body = at + 8
        if size == 1:
            size = int.from_bytes(data[body : body + 8], "big")
            body += 8
        elif size == 0:
            size = end - at
        if size < body - at or at + size > end:
            return
        yield _Box(kind, at, body, at + size)
        at += size


def _free(blanked: bytearray, box: _Box) -> None:
    blanked[box.start + 4 : box.start + 8] = b"free"
    blanked[box.body : box.end] = bytes(box.end - box.body)


def _blank_below(data: bytes, blanked: bytearray, box: _Box) -> None:
    if box.kind == b"meta":
        _blank_items(data, blanked, box)
    elif box.kind in _CONTAINERS:
        for inner in _boxes(data, box.body, box.end):
            if inner.kind in _ABOUT_PICTURE:
                _free(blanked, inner)
            elif inner.kind in {b"meta", b"trak"}:
                _blank_below(data, blanked, inner)


def _blank_items(data: bytes, blanked: bytearray, meta: _Box) -> None:
    kinds: dict[int, bytes] = {}
    located: _Box | None = None
    inside = range(0)
    for box in _boxes(data, meta.body + 4, meta.end):
        if box.kind == b"iinf":
            kinds = dict(_kinds(data, box))
        elif box.kind == b"iloc":
            located = box
        elif box.kind == b"idat":
            inside = range(box.body, box.end)
        elif box.kind in _ABOUT_PICTURE:
            _free(blanked, box)
    if located is None:
        return
    left = len(data)  # items of a hostile file may lie over each other, many times
    for item, method, extents in _places(data, located):
        if kinds.get(item) not in _FILLERS:
            continue
        place = {0: range(len(data)), 1: inside}.get(method, range(0))
        total = sum(length for _, length in extents)
        left -= total
        if left < 0 or any(start + length > len(place) or not length for start, length in extents):
            raise ValueError("an item lies where it can't be")
        begin, fill = _FILLERS[kinds[item]]
        content, at = begin[:total].ljust(total, fill), 0
        for start, length in extents:
            blanked[place.start + start : place.start + start + length] = content[at : at + length]
            at += length


def _kinds(data: bytes, iinf: _Box) -> Iterator[tuple[int, bytes]]:
    """Yield number and kind of each item."""
    has_long_count = data[iinf.body] > 0
    for box in _boxes(data, iinf.body + (8 if has_long_count else 6), iinf.end):
        numbers = _Numbers(data, box.body, box.end)
        version = numbers.next(4) >> 24
        if box.kind == b"infe" and version >= 2:
            item = numbers.next(2 if version == 2 else 4)
            numbers.next(2)
            yield item, numbers.next(4).to_bytes(4, "big")


def _places(data: bytes, iloc: _Box) -> Iterator[tuple[int, int, Sequence[tuple[int, int]]]]:
    """Yield number, construction method and (start, length) of the extents of each item."""
    numbers = _Numbers(data, iloc.body, iloc.end)
    version = numbers.next(4) >> 24
    sizes = numbers.next(2)
    of_start, of_length, of_base, of_index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    if not of_length:  # extents of no bytes could be counted without end
        raise ValueError("an item has no length")
    for _ in range(numbers.next(4 if version == 2 else 2)):
        item = numbers.next(4 if version == 2 else 2)
        method = numbers.next(2) & 15 if version else 0
        numbers.next(2)  # which file; only this one is ever read
        base, extents = numbers.next(of_base), []
        for _ in range(numbers.next(2)):
            numbers.next(of_index if version else 0)
            extents.append((base + numbers.next(of_start), numbers.next(of_length)))
        yield item, method, extents
