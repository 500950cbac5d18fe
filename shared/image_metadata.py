"""Removing what the file of an image tells besides the picture: camera, place, time, names, comments, previews.

Nothing is decoded or coded anew, so no pixel changes. What a picture is shown with stays: its colour profile, and of
EXIF the orientation alone. Parts are kept because they are known to be of the picture; what is unknown goes. Equal
input gives equal output, and a file that tells nothing stays as it is.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator

from PIL import Image

from shared.avif_metadata import blank_metadata
from shared.errors import BrokenImage, UnsupportedImage
from shared.image_header import PLUGINS, UNREADABLE, format_of
from shared.jpeg_segments import APPLICATION, COMMENT, END, SCAN, START, segments

ORIENTATION = 0x0112
_TURNED = range(2, 9)  # 1 is upright, and no other value means anything

_PNG_SIGNATURE_AND_HEADER_BYTES = 33
_PNG_PICTURE = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT"}
_PNG_COLOUR = {b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"bKGD", b"hIST", b"pHYs"}
_WEBP_PICTURE = {b"ICCP", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"}
_WEBP_EXIF, _WEBP_XMP = 0x08, 0x04  # flags of VP8X
_GIF_APPLICATIONS = {b"NETSCAPE2.0", b"ANIMEXTS1.0", b"ICCRGBG1012"}  # how often it plays; the colour profile
_GIF_BLOCK = re.compile(rb"[!,;]")


def without_metadata(data: bytes) -> bytes:
    """Return an image's file without what it tells besides the picture.

    Args:
        data: the whole file, of any format and in any state.

    Returns:
        The file to keep. Its decoded pixels, orientation and colour profile are those of `data`; what follows the
        picture is cut off. What is no image of a supported format, and BMP, comes back as it is.

    Raises:
        BrokenImage: if it can't be told apart what is picture and what is not.
    """
    try:
        name = format_of(data)
    except UnsupportedImage:
        return data  # whoever opens it is told what is wrong
    strip = _STRIP.get(name)
    if strip is None:
        return data
    try:
        stripped = strip(data, b"")
        if stripped != data and (orientation := _orientation(name, data)) in _TURNED:
            stripped = strip(data, _exif(orientation))
    except (ValueError, LookupError, struct.error) as error:
        raise BrokenImage(
            f"The {name} file is damaged: its camera data can't be told from the picture. Export the photo again."
        ) from error
    return data if stripped == data else stripped


def _orientation(name: str, data: bytes) -> int:
    """Return the EXIF orientation as the decoder will see it: Pillow also takes it from XMP and old PNG texts."""
    if name == "PNG":
        data = _png_without_pixels(data)
    try:
        # Not the plugin's own getexif: PNG's decodes the pixels first.
        return int(Image.Image.getexif(PLUGINS[name](io.BytesIO(data))).get(ORIENTATION, 1))
    except UNREADABLE:
        return 1


def _exif(orientation: int) -> bytes:
    """Return the smallest EXIF with an orientation: a TIFF of one directory with one entry."""
    return struct.pack(">2sHLHHHLHHL", b"MM", 42, 8, 1, ORIENTATION, 3, 1, orientation, 0, 0)


def _strip_jpeg(data: bytes, exif: bytes) -> bytes:
    parts: list[bytes | memoryview] = [b"\xff\xd8"]
    if exif:
        parts.append(b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif)
    view, behind, is_in_pixels = memoryview(data), 2, False
    for marker, start, end in segments(data):
        if is_in_pixels:
            parts.append(view[behind:start])
        if marker in APPLICATION:
            parts.append(_jpeg_application(data[start:end]))
        elif marker not in (COMMENT, START):
            parts.append(view[start:end])
        is_in_pixels = is_in_pixels or marker == SCAN
        behind = end
        if marker == END:
            break
    else:
        parts.append(view[behind:] if is_in_pixels else b"")
    return b"".join(parts)


def _jpeg_application(segment: bytes) -> bytes:
    """Return what is kept of an application's segment: what decides about colours, JFIF without its preview."""
    marker, body = segment[1], segment[4:]
    if marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14:
        return b"\xff\xe0\0\x10" + body[:12] + b"\0\0"
    is_kept = (marker == 0xE2 and body.startswith(b"ICC_PROFILE\0")) or (marker == 0xEE and body.startswith(b"Adobe"))
    return segment if is_kept else b""


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view, at = memoryview(data), 8
    while at + 8 <= len(data):
        kind = data[at + 4 : at + 8]
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield kind, view[at:end]
        if kind == b"IEND":
            return
        at = end


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _strip_png(data: bytes, exif: bytes) -> bytes:
    parts: list[bytes | memoryview] = [data[:8]]
    for kind, chunk in _png_chunks(data):
        if kind in _PNG_PICTURE or kind in _PNG_COLOUR:
            parts.append(chunk)
        if kind == b"IHDR" and exif:
            parts.append(_png_chunk(b"eXIf", exif))
    return b"".join(parts)


def _png_without_pixels(data: bytes) -> bytes:
    """Return the PNG's header with all that may hold an orientation, also what came behind the pixels."""
    texts = [chunk for kind, chunk in _png_chunks(data) if kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt")]
    return b"".join([data[:_PNG_SIGNATURE_AND_HEADER_BYTES], *texts, _png_chunk(b"IDAT", b"")])


def _strip_webp(data: bytes, exif: bytes) -> bytes:
    parts: list[bytes | memoryview] = []
    view, at, size = memoryview(data), 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    is_extended = False
    while at + 8 <= size:
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        end = min(at + 8 + length + length % 2, size)
        if kind == b"VP8X":
            flags = data[at + 8] & ~(_WEBP_EXIF | _WEBP_XMP) | (_WEBP_EXIF if exif else 0)
            parts += [data[at : at + 8], bytes([flags]), view[at + 9 : end]]
            is_extended = True
        elif kind in _WEBP_PICTURE:
            parts.append(view[at:end])
        at = end
    if exif and is_extended:
        parts.append(b"EXIF" + struct.pack("<I", len(exif)) + exif)
    body = b"".join(parts)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _strip_gif(data: bytes, _exif: bytes) -> bytes:
    view, at = memoryview(data), 13 + _gif_colours(data[10])
    parts: list[bytes | memoryview] = [view[:at]]
    while match := _GIF_BLOCK.search(data, at):
        start = match.start()
        if match[0] == b";":
            parts.append(b";")
            break
        if match[0] == b",":
            at = _gif_end(data, start + 11 + _gif_colours(data[start + 9]))
            is_kept = True
        else:
            at = _gif_end(data, start + 2)
            is_kept = data[start + 1] == 0xF9 or (
                data[start + 1] == 0xFF and data[start + 3 : start + 14] in _GIF_APPLICATIONS
            )
        if is_kept:
            parts.append(view[start:at])
    return b"".join(parts)


def _gif_colours(flags: int) -> int:
    """Return how many bytes the colour table takes that a descriptor announces."""
    return 3 << (flags % 8 + 1) if flags & 0x80 else 0


def _gif_end(data: bytes, at: int) -> int:
    """Return where a chain of sub-blocks ends."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


_STRIP: dict[str, Callable[[bytes, bytes], bytes]] = {
    "JPEG": _strip_jpeg,
    "PNG": _strip_png,
    "WEBP": _strip_webp,
    "GIF": _strip_gif,
    "AVIF": lambda data, _exif: blank_metadata(data),  # turns of an AVIF are no EXIF, and stay
}
