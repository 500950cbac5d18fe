"""What an image file says about itself, read without decoding a pixel.

Both tiers open images here, so web refuses exactly what the worker could not decode. The plugin is chosen by content
and opened directly: `Image.open` would warn or fail on many pixels before it tells how many there are.
"""

import io
import struct
import zlib
from dataclasses import dataclass
from itertools import islice

from PIL import Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from shared.errors import BrokenImage, EmptyImage, ImageTooLarge, TooManyParts, TooManyPixels, UnsupportedImage
from shared.image_parts import count_scans, read_singly

PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
    "AVIF": AvifImageFile,
    "BMP": BmpImageFile,
}
SUPPORTED_FORMATS = tuple(PLUGINS)

UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    RuntimeError,
    OverflowError,
    struct.error,
    zlib.error,
)
"""What Pillow's plugins raise on damaged files, while opening and while decoding."""

JPEG_MAX_SCANS = 64
"""Ten or so are usual. Each goes over all pixels and may take few bytes: a small file could keep a worker for hours."""
MAX_PARTS = 100_000
"""Some dozens are usual. Each is read in Python and kept in memory, and the smallest has two bytes."""

_BMP_HEADER_SIZES = {12, 16, 40, 52, 56, 64, 108, 124}
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Format and size of an image file; width and height as stored, before any EXIF rotation."""

    format: str
    media_type: str
    width: int
    height: int


def read_header(data: bytes, *, max_bytes: int, max_pixels: int) -> ImageHeader:
    """Tell an image's format and size without decoding its pixels.

    Args:
        data: the whole file.
        max_bytes: most bytes that are accepted.
        max_pixels: most pixels (width x height) that are accepted.

    Returns:
        The header. The format is told by the content; a file name or a declared media type plays no part.

    Raises:
        EmptyImage: no bytes.
        ImageTooLarge: more than `max_bytes` bytes.
        UnsupportedImage: none of SUPPORTED_FORMATS.
        TooManyPixels: more than `max_pixels` pixels.
        TooManyParts: more than MAX_PARTS, or a JPEG of more than JPEG_MAX_SCANS scans.
        BrokenImage: starts like a supported format, but its header can't be read.
    """
    image = open_image(data, max_bytes=max_bytes, max_pixels=max_pixels)
    name = str(image.format)
    return ImageHeader(name, Image.MIME[name], image.width, image.height)


def open_image(data: bytes, *, max_bytes: int, max_pixels: int) -> ImageFile.ImageFile:
    """Open an image for decoding, with the checks and errors of `read_header`."""
    if not data:
        raise EmptyImage(f"The image file has no bytes. Send a photo as {_names()}.")
    if len(data) > max_bytes:
        raise ImageTooLarge(
            f"The image has {len(data):,} bytes and at most {max_bytes:,} are accepted. "
            "Scale it down or save it as JPEG with stronger compression.",
            max_bytes=max_bytes,
        )
    name = format_of(data)
    check_parts(name, data)
    try:
        image = PLUGINS[name](io.BytesIO(data))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels("", max_pixels) from None
    except UNREADABLE:
        raise BrokenImage(
            f"The file starts like {name}, but its header can't be read: it is truncated or corrupt. "
            "Export the photo again and send the whole file."
        ) from None
    if image.width * image.height > max_pixels:
        raise _too_many_pixels(f" ({image.width:,} x {image.height:,})", max_pixels)
    return image


def check_parts(name: str, data: bytes) -> None:
    """Refuse a file that takes long to read, let alone to decode.

    Raises:
        TooManyParts: see `read_header`.
    """
    if any(True for _ in islice(read_singly(name, data), MAX_PARTS, None)):
        raise TooManyParts(
            f"The {name} file has more than {MAX_PARTS:,} parts beside its pixels. Export the photo without metadata.",
            max_parts=MAX_PARTS,
        )
    # The bytes of a marker also occur by chance, in previews and films that are appended: only then is it worth a look.
    if name == "JPEG" and data.count(b"\xff\xda") > JPEG_MAX_SCANS and (scans := count_scans(data)) > JPEG_MAX_SCANS:
        raise TooManyParts(
            f"The JPEG has {scans:,} scans and at most {JPEG_MAX_SCANS} are accepted. Save it as a baseline JPEG.",
            max_scans=JPEG_MAX_SCANS,
        )


def _too_many_pixels(size: str, max_pixels: int) -> TooManyPixels:
    side = int(max_pixels**0.5)
    return TooManyPixels(
        f"The image has too many pixels{size}: at most {max_pixels:,} are accepted. "
        f"Scale it down, for example to {min(side, 2048):,} pixels on its longer side.",
        max_pixels=max_pixels,
    )


def format_of(data: bytes) -> str:
    """Return the name of the format that the first bytes announce."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    # Two letters alone would also take any text that starts with "BM" for a bitmap.
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    brands = _brands(data)
    if brands & _AVIF_BRANDS:
        return "AVIF"
    if brands & _HEIC_BRANDS:
        raise _unsupported("HEIC photos can't be read; export it as JPEG.")
    if _is_svg(data):
        raise _unsupported("SVG drawings can't be searched; export it as PNG.")
    raise _unsupported("The file is not an image of a supported format; export it as JPEG or PNG.")


def _unsupported(detail: str) -> UnsupportedImage:
    return UnsupportedImage(f"{detail} Supported formats: {_names()}.", supported_formats=list(SUPPORTED_FORMATS))


def _brands(data: bytes) -> set[bytes]:
    """Return the major and compatible brands of an ISO media file (AVIF, HEIC); none for other files."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), len(data), 256)
    return {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}


def _is_svg(data: bytes) -> bool:
    start = data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!--", b"<!doctype")) and b"<svg" in start)


def _names() -> str:
    return f"{', '.join(SUPPORTED_FORMATS[:-1])} or {SUPPORTED_FORMATS[-1]}"
