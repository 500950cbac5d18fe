import io
import struct
import subprocess
import sys
import zlib

import pytest
from PIL import Image

from shared.errors import BrokenImage, EmptyImage, ImageTooLarge, TooManyParts, TooManyPixels, UnsupportedImage
from shared.image_header import JPEG_MAX_SCANS, MAX_PARTS, SUPPORTED_FORMATS, ImageHeader, read_header
from shared.image_parts import JPEG_SCAN, jpeg_segments

MAX_BYTES = 1_000_000
MAX_PIXELS = 50_000_000


def header(data: bytes, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    return read_header(data, max_bytes=max_bytes, max_pixels=max_pixels)


def encoded(name: str, width: int = 30, height: int = 20) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(file, name)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds next to no data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    fields = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", fields) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("JPEG", "image/jpeg"),
        ("PNG", "image/png"),
        ("WEBP", "image/webp"),
        ("GIF", "image/gif"),
        ("AVIF", "image/avif"),
        ("BMP", "image/bmp"),
    ],
)
def test_tells_format_and_size_by_content(name: str, media_type: str) -> None:
    assert header(encoded(name)) == ImageHeader(name, media_type, 30, 20)


def test_every_supported_format_is_tried_above() -> None:
    assert set(SUPPORTED_FORMATS) == {"JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP"}


def test_no_bytes_is_an_empty_image() -> None:
    with pytest.raises(EmptyImage, match="no bytes"):
        header(b"")


def test_bytes_are_allowed_up_to_the_limit_and_not_one_more() -> None:
    data = encoded("PNG")
    assert header(data, max_bytes=len(data)).width == 30
    with pytest.raises(ImageTooLarge, match="Scale it down") as caught:
        header(data, max_bytes=len(data) - 1)
    assert caught.value.members == {"max_bytes": len(data) - 1}


def test_pixels_are_allowed_up_to_the_limit_and_not_one_more() -> None:
    assert header(encoded("PNG"), max_pixels=600).height == 20
    with pytest.raises(TooManyPixels, match="30 x 20"):
        header(encoded("PNG"), max_pixels=599)


def test_a_huge_png_header_is_too_many_pixels_and_no_warning_of_pillow() -> None:
    with pytest.raises(TooManyPixels, match=r"50,000 x 50,000.*at most 50,000,000"):
        header(png_header(50_000, 50_000))


def test_sizes_at_which_pillow_would_only_warn_are_judged_by_our_limit() -> None:
    data = png_header(10_000, 10_000)
    with pytest.raises(TooManyPixels, match="10,000 x 10,000"):
        header(data)
    assert header(data, max_pixels=100_000_000).width == 10_000


def test_a_huge_webp_canvas_is_too_many_pixels() -> None:
    canvas = (16_383 - 1).to_bytes(3, "little") * 2
    extended = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + canvas
    with pytest.raises(TooManyPixels, match="at most 50,000,000"):
        header(b"RIFF" + struct.pack("<I", 4 + len(extended)) + b"WEBP" + extended)


@pytest.mark.parametrize(
    "data",
    [
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- drawn --><svg/>',
        b"  <!DOCTYPE svg>\n<SVG/>",
    ],
)
def test_svg_is_named_and_the_remedy_told(data: bytes) -> None:
    with pytest.raises(UnsupportedImage, match=r"SVG.*export it as PNG.*JPEG, PNG, WEBP, GIF, AVIF or BMP") as caught:
        header(data)
    assert caught.value.members["supported_formats"] == list(SUPPORTED_FORMATS)


def test_heic_is_named_and_the_remedy_told() -> None:
    with pytest.raises(UnsupportedImage, match=r"HEIC.*export it as JPEG"):
        header(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))


@pytest.mark.parametrize(
    "data",
    [b"hello", b"BMW and other words that start like a bitmap", b"%PDF-1.7", b"II*\0" + bytes(50), b"\0" * 40],
    ids=["text", "text with BM", "PDF", "TIFF", "zeros"],
)
def test_what_is_no_supported_image_is_refused_with_the_list_of_formats(data: bytes) -> None:
    with pytest.raises(UnsupportedImage, match="Supported formats: JPEG, PNG, WEBP, GIF, AVIF or BMP"):
        header(data)


@pytest.mark.parametrize("name", SUPPORTED_FORMATS)
def test_a_file_that_ends_within_its_header_is_broken(name: str) -> None:
    with pytest.raises(BrokenImage, match=f"starts like {name}.*send the whole file"):
        header(encoded(name)[:24])


def test_reading_headers_needs_no_numpy() -> None:
    code = "import sys, shared.image_header; sys.exit(bool({'numpy', 'torch', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def progressive(scans: int) -> bytes:
    """A JPEG that goes over its pixels so many times."""
    file = io.BytesIO()
    Image.new("RGB", (30, 20), "teal").save(file, "JPEG", progressive=True)
    data = file.getvalue()
    starts = [start for marker, start, _ in jpeg_segments(data) if marker == JPEG_SCAN]
    last = data[starts[-1] : -2]
    return data[:-2] + last * (scans - len(starts)) + data[-2:]


def test_scans_are_allowed_up_to_the_limit_and_not_one_more() -> None:
    assert header(progressive(JPEG_MAX_SCANS)).width == 30
    with pytest.raises(TooManyParts, match=r"65 scans and at most 64.*baseline") as caught:
        header(progressive(JPEG_MAX_SCANS + 1))
    assert caught.value.members == {"max_scans": JPEG_MAX_SCANS}


def test_the_bytes_of_a_scan_s_marker_count_only_where_they_are_one() -> None:
    """Phones append films, in which any two bytes occur by chance; previews have scans of their own."""
    preview = b"\xff\xe1" + struct.pack(">H", 302) + b"\xff\xda" * 150
    data = encoded("JPEG")
    assert header(data[:2] + preview + data[2:] + b"\xff\xda" * 1000).width == 30


def with_parts(name: str, count: int) -> bytes:
    """A small picture in a file with so many parts more than it needs."""
    data = encoded(name)
    if name == "JPEG":
        return data[:2] + b"\xff\xfe\0\2" * count + data[2:]
    if name == "PNG":
        return data[:33] + struct.pack(">I4sI", 0, b"prVt", zlib.crc32(b"prVt")) * count + data[33:]
    at = data.index(b"\x2c\0\0\0\0")
    return data[:at] + b"\x21\xfe" + b"\1x" * count + b"\0" + data[at:]


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF"])
def test_a_file_of_too_many_parts_is_refused_before_they_are_read_one_by_one(name: str) -> None:
    assert header(with_parts(name, MAX_PARTS - 100), max_bytes=10**7).width == 30
    with pytest.raises(TooManyParts, match=r"more than 100,000 parts.*without metadata") as caught:
        header(with_parts(name, MAX_PARTS), max_bytes=10**7)
    assert caught.value.members == {"max_parts": MAX_PARTS}


@pytest.mark.parametrize("name", ["JPEG", "GIF"])
def test_junk_between_the_parts_counts_as_well(name: str) -> None:
    """Pillow reads it byte by byte."""
    data = encoded(name)
    at = 20 if name == "JPEG" else data.index(b"\x2c\0\0\0\0")
    assert header(data[:at] + bytes(1000) + data[at:]).width == 30
    with pytest.raises(TooManyParts):
        header(data[:at] + bytes(MAX_PARTS + 1) + data[at:])
