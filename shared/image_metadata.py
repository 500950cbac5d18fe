"""Removing what the file of an image tells besides the picture: camera, place, time, names, comments, previews.

Nothing is decoded or coded anew, so no pixel changes. What a picture is shown with stays: its colour profile, and of
EXIF the orientation alone. Parts are kept because they are known to be of the picture; what is unknown goes. Equal
input gives equal output, and a file that tells nothing stays as it is.
"""

import io
import struct
import zlib
from collections.abc import Callable
from typing import cast

from PIL import Image

from shared.avif_metadata import blank_metadata
from shared.errors import BrokenImage, UnsupportedImage
from shared.image_header import PLUGINS, UNREADABLE, check_parts, format_of
from shared.image_parts import (
    GIF_END,
    GIF_EXTENSION,
    GIF_PICTURE,
    JPEG_END,
    JPEG_SCAN,
    JPEG_START,
    PNG_PIXELS,
    gif_blocks,
    gif_first_block,
    jpeg_segments,
    png_chunks,
    webp_chunks,
)

ORIENTATION = 0x0112
_TURNED = range(2, 9)  # 1 is upright, and no other value means anything
_WITH_EXIF = {"JPEG", "PNG", "WEBP"}  # an AVIF's turns are no EXIF, and stay; a GIF has none

_JPEG_COMMENT = 0xFE
_JPEG_APPLICATIONS = range(0xE0, 0xF0)
_PNG_SIGNATURE_AND_HEADER_BYTES = 33
_PNG_PICTURE = {b"IHDR", b"PLTE", b"IEND", b"tRNS", b"acTL", b"fcTL", *PNG_PIXELS}
_PNG_COLOUR = {b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"bKGD", b"hIST", b"pHYs"}
_WEBP_PICTURE = {b"ICCP", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"}
_WEBP_EXIF, _WEBP_XMP = 0x08, 0x04  # flags of VP8X
_GIF_APPLICATIONS = {b"NETSCAPE2.0", b"ANIMEXTS1.0", b"ICCRGBG1012"}  # how often it plays; the colour profile


def without_metadata(data: bytes) -> bytes:
    """Return an image's file without what it tells besides the picture.

    Args:
        data: the whole file, of any format and in any state.

    Returns:
        The file to keep. Its decoded pixels, orientation and colour profile are those of `data`; what follows the
        picture is cut off. What is no image of a supported format, and BMP, comes back as it is.

    Raises:
        BrokenImage: if it can't be told apart what is picture and what is not.
        TooManyParts: see `shared.image_header.read_header`.
    """
    try:
        name = format_of(data)
    except UnsupportedImage:
        return data  # whoever opens it is told what is wrong
    strip = _STRIP.get(name)
    if strip is None:
        return data
    check_parts(name, data)
    try:
        stripped = strip(data, b"")
        if stripped != data and name in _WITH_EXIF and (orientation := _orientation(name, data)) is not None:
            stripped = strip(data, _exif(orientation))
    except (ValueError, LookupError, struct.error) as error:
        raise BrokenImage(
            f"The {name} file is damaged: its camera data can't be told from the picture. Export the photo again."
        ) from error
    return data if stripped == data else stripped


def _orientation(name: str, data: bytes) -> int | None:
    """Return the EXIF orientation as a decoder sees it, if it turns the picture.

    Pillow also takes it from XMP and from old texts of PNG. What it stands for may be of any type in a damaged file.
    """
    if name == "PNG":
        data = _png_without_pixels(data)
    try:
        # Not the plugin's own getexif: PNG's decodes the pixels first.
        found = Image.Image.getexif(PLUGINS[name](io.BytesIO(data))).get(ORIENTATION)
    except (*UNREADABLE, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
    return int(cast("int", found)) if found in _TURNED else None


def _exif(orientation: int) -> bytes:
    """Return the smallest EXIF with an orientation: a TIFF of one directory with one entry."""
    return struct.pack(">2sHLHHHLHHL", b"MM", 42, 8, 1, ORIENTATION, 3, 1, orientation, 0, 0)


def _strip_jpeg(data: bytes, exif: bytes) -> bytes:
    parts: list[bytes | memoryview] = [b"\xff\xd8"]
    if exif:
        parts.append(b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif)
    view, behind, is_in_pixels = memoryview(data), 2, False
    for marker, start, end in jpeg_segments(data):
        if is_in_pixels:
            parts.append(view[behind:start])
        if marker in _JPEG_APPLICATIONS:
            parts.append(_jpeg_application(data[start:end]))
        elif marker not in (_JPEG_COMMENT, JPEG_START):
            parts.append(view[start:end])
        is_in_pixels = is_in_pixels or marker == JPEG_SCAN
        behind = end
        if marker == JPEG_END:
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


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _strip_png(data: bytes, exif: bytes) -> bytes:
    view, parts = memoryview(data), [memoryview(data[:8])]
    for kind, start, end in png_chunks(data):
        if kind in _PNG_PICTURE or kind in _PNG_COLOUR:
            parts.append(view[start:end])
        if kind == b"IHDR" and exif:
            parts.append(memoryview(_png_chunk(b"eXIf", exif)))
    return b"".join(parts)


def _png_without_pixels(data: bytes) -> bytes:
    """Return the PNG's header with all that may hold an orientation, also what came behind the pixels."""
    texts = [data[start:end] for kind, start, end in png_chunks(data) if kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt")]
    return b"".join([data[:_PNG_SIGNATURE_AND_HEADER_BYTES], *texts, _png_chunk(b"IDAT", b"")])


def _strip_webp(data: bytes, exif: bytes) -> bytes:
    view = memoryview(data)
    parts: list[bytes | memoryview] = []
    is_extended = False
    for kind, start, end in webp_chunks(data):
        if kind == b"VP8X":
            flags = data[start + 8] & ~(_WEBP_EXIF | _WEBP_XMP) | (_WEBP_EXIF if exif else 0)
            parts += [data[start : start + 8], bytes([flags]), view[start + 9 : end]]
            is_extended = True
        elif kind in _WEBP_PICTURE:
            parts.append(view[start:end])
    if exif and is_extended:
        parts.append(b"EXIF" + struct.pack("<I", len(exif)) + exif)
    body = b"".join(parts)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _strip_gif(data: bytes, _exif: bytes) -> bytes:
    view, parts = memoryview(data), [memoryview(data)[: gif_first_block(data)]]
    for kind, start, end in gif_blocks(data):
        label, application = data[start + 1 : start + 2], data[start + 3 : start + 14]
        is_control = kind == GIF_EXTENSION and label == b"\xf9"
        is_of_picture = kind == GIF_EXTENSION and label == b"\xff" and application in _GIF_APPLICATIONS
        if kind in (GIF_PICTURE, GIF_END) or is_control or is_of_picture:
            parts.append(view[start:end])
    return b"".join(parts)


_STRIP: dict[str, Callable[[bytes, bytes], bytes]] = {
    "JPEG": _strip_jpeg,
    "PNG": _strip_png,
    "WEBP": _strip_webp,
    "GIF": _strip_gif,
    "AVIF": lambda data, _exif: blank_metadata(data),
}
