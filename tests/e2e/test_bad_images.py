"""Photos as customers send them: odd ones are searched as a person sees them, bad ones refused with a stable code."""

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tests.e2e.pictures import decoded, drawing, encoded
from tests.e2e.steps import assert_failed, assert_problem, hits_of, ids_of
from tests.stack import Stack

UPLOAD_MAX_BYTES = 20 * 1024 * 1024
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle r="4"/></svg>'
# How a camera stores what is upright for a person, by the orientation that it notes (EXIF 2.32, 4.6.4).
STORED_AS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
Odd = tuple[bytes, Image.Image]


def png(width: int, height: int, depth: int, pixels: bytes) -> bytes:
    """Write an RGB PNG by hand: Pillow refuses sizes and depths that others write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def same_hits(stack: Stack, odd: bytes, plain: bytes) -> bool:
    """Tell whether two photos find the same items; neither is answered from a cache."""
    found, wanted = stack.search(odd, fresh=True), stack.search(plain, fresh=True)
    assert found["result"]["answered_from"] == wanted["result"]["answered_from"] == "engine"
    assert len(hits_of(wanted)) == 10
    scores = [[hit["score"] for hit in hits_of(job)] for job in (found, wanted)]
    return ids_of(found) == ids_of(wanted) and scores[0] == pytest.approx(scores[1], abs=0.01)


@pytest.mark.parametrize(
    ("upload", "status", "code"),
    [
        pytest.param(b"", 422, "image_empty", id="empty"),
        pytest.param(b"Dear shop, do you have this in blue?", 415, "image_unsupported", id="text"),
        pytest.param(b"%PDF-1.7\n", 415, "image_unsupported", id="PDF"),
        pytest.param(SVG, 415, "image_unsupported", id="SVG"),
        pytest.param(encoded(drawing("cut"), "JPEG")[:30], 422, "image_broken", id="JPEG cut in its header"),
        pytest.param(png(50_000, 50_000, 8, b""), 413, "image_too_many_pixels", id="50,000 x 50,000 PNG"),
        pytest.param(encoded(drawing("big")).ljust(UPLOAD_MAX_BYTES + 1), 413, "image_too_large", id="over the limit"),
    ],
)
def test_an_upload_that_is_no_searchable_photo_is_refused_before_any_job(
    stack: Stack, upload: bytes, status: int, code: str
) -> None:
    assert_problem(stack.post("/v1/searches", files={"image": upload}), status, code)
    assert_problem(stack.put("/v1/items/refused", files={"image": upload}), status, code)
    assert_problem(stack.get("/v1/items/refused"), 404, "item_not_found")


def test_a_drawing_as_svg_is_refused_with_the_remedy(stack: Stack) -> None:
    problem = assert_problem(stack.post("/v1/searches", files={"image": SVG}), 415, "image_unsupported")
    assert "SVG" in problem["detail"]
    assert "JPEG" in problem["supported_formats"]


def test_a_photo_at_the_limit_is_searched(stack: Stack) -> None:
    at_limit = encoded(drawing("big")).ljust(UPLOAD_MAX_BYTES)
    assert len(hits_of(stack.search(at_limit))) == 10


@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_a_truncated_jpeg_ends_as_a_failed_job(stack: Stack, photo: bytes, kept: float) -> None:
    job = stack.search(photo[: int(len(photo) * kept)])
    assert "truncated" in assert_failed(job, "image_broken")["detail"]


def cmyk(photo: Image.Image) -> Odd:
    data = encoded(photo.convert("CMYK"), "JPEG", quality=95)
    assert decoded(data).mode == "CMYK"
    return data, decoded(data).convert("RGB")


def palette(photo: Image.Image) -> Odd:
    quantised = photo.quantize(64)
    assert decoded(encoded(quantised)).mode == "P"
    return encoded(quantised), quantised.convert("RGB")


def sixteen_bit_grey(photo: Image.Image) -> Odd:
    grey = photo.convert("L")
    data = encoded(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257))
    assert decoded(data).mode == "I;16"
    return data, grey.convert("RGB")


def sixteen_bit_colour(photo: Image.Image) -> Odd:
    values = (np.asarray(photo).astype(np.uint16) * 257).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    return png(photo.width, photo.height, 16, rows), photo


def transparent(photo: Image.Image) -> Odd:
    mask = Image.new("L", photo.size, 0)
    mask.paste(255, (photo.width // 8, photo.height // 8, photo.width * 7 // 8, photo.height * 7 // 8))
    on_white = Image.new("RGB", photo.size, "white")
    on_white.paste(photo, mask=mask)
    cut_out = photo.copy()
    cut_out.putalpha(mask)
    return encoded(cut_out), on_white


def animated_gif(photo: Image.Image) -> Odd:
    first, second = photo.quantize(128), drawing("second frame", photo.width).quantize(128)
    data = encoded(first, "GIF", save_all=True, append_images=[second], duration=100, loop=0)
    assert getattr(decoded(data), "n_frames", 1) == 2
    return data, decoded(data).convert("RGB")


def animated_webp(photo: Image.Image) -> Odd:
    data = encoded(photo, "WEBP", save_all=True, append_images=[drawing("second frame", photo.width)], lossless=True)
    assert getattr(decoded(data), "n_frames", 1) == 2
    return data, photo


@pytest.mark.parametrize(
    "make", [cmyk, palette, sixteen_bit_grey, sixteen_bit_colour, transparent, animated_gif, animated_webp]
)
def test_a_photo_of_an_unusual_kind_is_searched_as_a_person_sees_it(
    stack: Stack, photo: bytes, photographed: str, make: Callable[[Image.Image], Odd]
) -> None:
    odd, seen = make(decoded(photo).convert("RGB"))
    assert same_hits(stack, odd, encoded(seen))
    if make is not sixteen_bit_grey:
        assert ids_of(stack.search(odd))[0] == photographed


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_a_rotated_photo_gives_the_same_hits_as_the_upright_one(
    stack: Stack, photo: bytes, photographed: str, format_: str, orientation: int
) -> None:
    stored = decoded(photo).transpose(STORED_AS[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    quality = {"quality": 95, "subsampling": 0} if format_ == "JPEG" else {}
    rotated = encoded(stored, format_, exif=exif.tobytes(), **quality)

    assert same_hits(stack, rotated, photo)
    assert ids_of(stack.search(rotated))[0] == photographed


def test_without_its_orientation_a_rotated_photo_gives_other_hits(stack: Stack, photo: bytes) -> None:
    assert not same_hits(stack, encoded(decoded(photo).transpose(Image.Transpose.ROTATE_90)), photo)
