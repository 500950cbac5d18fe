"""What is kept of an item's photo: the picture to the last bit, and nothing about who took it, when and where."""

import io
import struct
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from shared.errors import BrokenImage
from shared.image_header import SUPPORTED_FORMATS
from shared.image_metadata import without_metadata
from tests.camera import ORIENTATION, SECRET, exif, profile, taken, xmp

KINDS: list[tuple[str, dict[str, Any]]] = [
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("JPEG", {"restart_marker_blocks": 2}),
    ("PNG", {}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    ("AVIF", {}),
    ("GIF", {}),
]
ANIMATED: list[tuple[str, dict[str, Any]]] = [("PNG", {}), ("WEBP", {"lossless": True}), ("GIF", {}), ("AVIF", {})]


def picture(width: int = 48, height: int = 32, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def frames(data: bytes) -> list[tuple[str, bytes]]:
    with Image.open(io.BytesIO(data)) as image:
        return [(frame.mode, frame.tobytes()) for frame in ImageSequence.Iterator(image)]


def about(data: bytes) -> tuple[dict[int, Any], dict[int, Any], bytes | None]:
    """Return EXIF, GPS and the colour profile, as Pillow reads them."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        read = image.getexif()
        return dict(read), dict(read.get_ifd(0x8825)), image.info.get("icc_profile")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def box(kind: bytes, *body: bytes) -> bytes:
    return struct.pack(">I", 8 + sum(map(len, body))) + kind + b"".join(body)


@pytest.mark.parametrize(("name", "options"), KINDS)
@pytest.mark.parametrize("orientation", [None, 1, *range(2, 9)])
def test_place_and_names_are_gone_and_the_picture_is_the_same_to_the_bit(
    name: str, options: dict[str, Any], orientation: int | None
) -> None:
    photo = taken(picture(), name, orientation, **options)
    kept = without_metadata(photo)
    assert SECRET in photo
    assert SECRET not in kept
    assert len(kept) <= len(photo)
    assert frames(kept) == frames(photo)
    read, gps, colours = about(kept)
    assert gps == {}
    assert colours == (None if name == "GIF" else profile())
    is_turned = orientation not in (None, 1) and name != "GIF"
    assert {tag: value for tag, value in read.items() if (tag, value) != (ORIENTATION, 1)} == (
        {ORIENTATION: orientation} if is_turned else {}
    )


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_what_was_cleaned_is_clean(name: str, options: dict[str, Any]) -> None:
    kept = without_metadata(taken(picture(), name, **options))
    assert without_metadata(kept) == kept


@pytest.mark.parametrize(("name", "options"), [*KINDS, ("BMP", {})])
def test_a_file_that_tells_nothing_stays_as_it_is(name: str, options: dict[str, Any]) -> None:
    data = encoded(picture(), name, **options)
    assert without_metadata(data) is data


def test_every_format_is_tried_above() -> None:
    assert {name for name, _ in KINDS} | {"BMP"} == set(SUPPORTED_FORMATS)


@pytest.mark.parametrize(("name", "options"), ANIMATED)
def test_an_animation_keeps_all_its_frames(name: str, options: dict[str, Any]) -> None:
    more = [picture(seed=seed) for seed in (1, 2)]
    photo = taken(picture(), name, None, save_all=True, append_images=more, duration=100, **options)
    kept = without_metadata(photo)
    assert SECRET not in kept
    assert len(frames(kept)) == 3
    assert frames(kept) == frames(photo)


@pytest.mark.parametrize("mode", ["L", "CMYK", "YCbCr"])
def test_colours_of_a_jpeg_are_told_by_segments_that_stay(mode: str) -> None:
    photo = taken(picture().convert(mode), "JPEG")
    assert frames(without_metadata(photo)) == frames(photo)


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA", "1", "I;16"])
def test_palette_and_transparency_of_a_png_stay(mode: str) -> None:
    image = Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)) if mode == "I;16" else None
    photo = taken(image or picture().convert(mode), "PNG", None)
    assert frames(without_metadata(photo)) == frames(photo)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_a_photo_that_tells_more_is_the_same_image_as_one_that_tells_less(name: str) -> None:
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    photo = encoded(picture(), name, exif=turned, icc_profile=profile())
    assert without_metadata(taken(picture(), name)) == without_metadata(photo)


@pytest.mark.parametrize("name", ["JPEG", "WEBP", "GIF", "AVIF"])
def test_photos_that_differ_in_their_place_only_are_one_image(name: str) -> None:
    photo = taken(picture(), name)
    elsewhere = photo.replace(SECRET, SECRET[::-1])
    assert elsewhere != photo
    assert without_metadata(elsewhere) == without_metadata(photo)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "AVIF"])
def test_what_follows_the_picture_is_cut_off(name: str) -> None:
    """Phones append a second picture or a film."""
    data = encoded(picture(), name)
    assert without_metadata(data + box(b"mpvd", SECRET)).rstrip(b"\0").startswith(data.rstrip(b"\0"))
    assert SECRET not in without_metadata(data + box(b"mpvd", SECRET))
    assert frames(without_metadata(data + SECRET)) == frames(data)


def test_of_a_set_of_pictures_the_second_goes_with_its_place() -> None:
    second = Image.open(io.BytesIO(taken(picture(seed=1), "JPEG")))
    photo = encoded(picture(), "MPO", save_all=True, append_images=[second], exif=exif())
    assert photo.count(SECRET) >= 2
    kept = without_metadata(photo)
    assert SECRET not in kept
    assert frames(kept) == frames(photo)[:1]


def test_a_preview_in_the_head_of_a_jpeg_goes() -> None:
    data = encoded(picture(), "JPEG")
    head = data[2:20]
    assert head[4:9] == b"JFIF\0"
    preview = b"\x01\x01" + b"\xaa\xbb\xcc"
    with_preview = data[:2] + b"\xff\xe0\0\x13" + head[4:16] + preview + data[20:]
    assert frames(with_preview) == frames(data)
    assert without_metadata(with_preview) == data


def test_an_orientation_that_stands_in_xmp_alone_stays() -> None:
    for name in ("JPEG", "WEBP"):
        photo = encoded(picture(), name, xmp=xmp(orientation=8))
        assert about(photo)[0] == {ORIENTATION: 8}
        assert about(without_metadata(photo))[0] == {ORIENTATION: 8}
        assert SECRET not in without_metadata(photo)


def test_an_orientation_behind_the_pixels_of_a_png_stays() -> None:
    data = encoded(picture(), "PNG")
    photo = data[:-12] + chunk(b"eXIf", exif(3).tobytes()[6:]) + data[-12:]
    kept = without_metadata(photo)
    assert about(photo)[0][ORIENTATION] == 3
    assert about(kept)[0] == {ORIENTATION: 3}
    assert frames(kept) == frames(photo)


def test_removing_decodes_no_pixel() -> None:
    data = encoded(picture(), "PNG")
    start = data.index(b"IDAT") + 4
    photo = taken(picture(), "PNG")
    at = photo.index(b"IDAT") + 4
    broken = photo[:at] + bytes(len(data) - start)
    assert SECRET not in without_metadata(broken)


@pytest.mark.parametrize("data", [b"", b"text", b"<svg/>", b"\xff\xd8", b"BM", b"\0\0\0\x18ftypheic" + bytes(20)])
def test_what_is_no_image_is_left_to_the_reader_of_headers(data: bytes) -> None:
    assert without_metadata(data) is data


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "options"), KINDS)
def test_a_file_cut_anywhere_is_cleaned_or_broken(name: str, options: dict[str, Any]) -> None:
    photo = taken(picture(16, 16), name, **options)
    for length in range(12, len(photo), 7):
        try:
            kept = without_metadata(photo[:length])
        except BrokenImage:
            continue
        assert SECRET not in kept
        assert len(kept) <= length + 64


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "options"), KINDS)
def test_random_damage_is_cleaned_or_broken(name: str, options: dict[str, Any]) -> None:
    random = np.random.default_rng(3)
    photo = taken(picture(16, 16), name, **options)
    cleaned = 0
    for _ in range(300):
        data = bytearray(photo)
        for at in random.integers(0, random.choice([200, len(data)]), size=random.choice([1, 4])):
            data[at] = random.integers(0, 256)
        try:
            without_metadata(bytes(data))
            cleaned += 1
        except BrokenImage:
            pass
    assert cleaned > 0


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(
        [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\xff\0\0\0WEBP", b"\0\0\0\x10ftypavif\0\0\0\0"]
    ),
    st.binary(max_size=200),
)
def test_any_bytes_are_cleaned_or_broken(start: bytes, rest: bytes) -> None:
    with suppress(BrokenImage):
        assert len(without_metadata(start + rest)) <= len(start + rest) + 64


def avif_of(items: int, *, extent: bytes, extents: int = 1, sizes: bytes = b"\x44\x00") -> bytes:
    """Return the boxes of an AVIF with EXIF items that all have the same extents."""
    infe = [box(b"infe", struct.pack(">BxxxHH4s", 2, n, 0, b"Exif"), b"\0") for n in range(items)]
    iinf = box(b"iinf", bytes(4), struct.pack(">H", items), *infe)
    entries = [struct.pack(">HHH", n, 0, extents) + extent * extents for n in range(items)]
    iloc = box(b"iloc", bytes(4), sizes, struct.pack(">H", items), *entries)
    return box(b"ftyp", b"avif", bytes(4), b"avif") + box(b"meta", bytes(4), iinf, iloc) + box(b"mdat", bytes(4000))


def test_items_of_an_avif_that_lie_over_each_other_are_not_blanked_without_end() -> None:
    once = avif_of(1, extent=struct.pack(">II", 0, 4000))
    assert without_metadata(once) != once
    with pytest.raises(BrokenImage, match="can't be told"):
        without_metadata(avif_of(60_000, extent=struct.pack(">II", 0, 4000)))


@pytest.mark.parametrize(
    "data",
    [
        avif_of(1, extent=struct.pack(">II", 100_000, 4)),
        avif_of(1, extent=struct.pack(">II", 0, 0)),
        avif_of(1, extent=b"", extents=65_535, sizes=b"\0\0"),
        avif_of(2, extent=struct.pack(">II", 0, 4))[:-4100],
    ],
    ids=["behind the end", "nowhere", "of no length", "cut"],
)
def test_items_of_an_avif_that_lie_nowhere_are_refused_or_never_read(data: bytes) -> None:
    with suppress(BrokenImage):
        assert len(without_metadata(data)) < len(data)
