import io
import threading
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps

from shared.errors import BrokenImage, TooManyPixels, UnsupportedImage
from shared.schemas import Crop
from worker.decode import decode_image, decode_pixels
from worker.encoder.transform import Transform

ORIENTATION = 0x0112


def decode(data: bytes, crop: Crop | None = None) -> Image.Image:
    return decode_image(data, max_bytes=10_000_000, max_pixels=1_000_000, crop=crop)


def encoded(image: Image.Image, name: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def picture(width: int = 48, height: int = 32) -> Image.Image:
    """Return a picture that has no symmetry: red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 90)], axis=2).astype(np.uint8))


def difference(one: Image.Image, other: Image.Image) -> float:
    """Return the mean absolute difference in levels of 0..255."""
    assert (one.mode, one.size) == ("RGB", other.size)
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other.convert("RGB"), dtype=float)).mean())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("AVIF", {"quality": 95}),
        ("BMP", {}),
    ],
)
def test_every_format_gives_the_same_picture(name: str, options: dict[str, object]) -> None:
    assert difference(decode(encoded(picture(), name, **options)), picture()) < 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_a_photo_of_any_exif_orientation_comes_out_upright(name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(picture(), name, exif=exif, quality=95)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert decode(data).size == ((32, 48) if orientation > 4 else (48, 32))
    assert difference(decode(data), expected) == 0


def test_a_photo_turned_by_its_exif_is_the_upright_one() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    lying = picture().transpose(Image.Transpose.ROTATE_90)
    assert difference(decode(encoded(lying, "PNG", exif=exif)), picture()) == 0


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_refuse_the_photo() -> None:
    data = encoded(picture(), "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    assert difference(decode(data), picture()) < 2


@pytest.mark.parametrize("name", ["GIF", "WEBP", "AVIF", "PNG", "MPO"])
def test_of_an_animation_or_a_set_the_first_picture_is_taken(name: str) -> None:
    first, second = Image.new("RGB", (20, 20), (255, 0, 0)), Image.new("RGB", (20, 20), (0, 0, 255))
    data = encoded(first, name, save_all=True, append_images=[second], duration=100)
    assert difference(decode(data), first) < 3


@pytest.mark.parametrize("name", ["GIF", "PNG"])
def test_further_frames_are_not_even_looked_at(name: str) -> None:
    """So it makes no difference how many there are, or how large they would become."""
    first, second = picture(), picture().transpose(Image.Transpose.ROTATE_180)
    data = encoded(first, name, save_all=True, append_images=[second, first, second], duration=100)
    end = {"GIF": b"\x21\xf9\x04", "PNG": b"fdAT"}[name]
    behind_first = data.index(end, data.index(end) + 1) + 12
    damaged = data[:behind_first] + b"\xff" * (len(data) - behind_first)
    assert difference(decode(damaged), decode(data)) == 0


def test_cmyk_keeps_its_colours() -> None:
    red = Image.new("RGB", (16, 16), (200, 30, 40))
    assert difference(decode(encoded(red.convert("CMYK"), "JPEG", quality=95)), red) < 3


def test_adobe_cmyk_is_not_inverted() -> None:
    data = encoded(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG")
    assert b"Adobe" in data[:200]
    assert np.asarray(decode(data)).min() > 250


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(1, 256).repeat(4, axis=0)
    levels = np.asarray(decode(encoded(Image.fromarray(values), "PNG")))
    assert np.abs(levels.astype(int) - np.arange(256)[None, :, None]).max() <= 1


def test_transparent_sixteen_bit_grey_becomes_white() -> None:
    values = np.array([[1000, 40_000, 1001]], dtype=np.uint16)
    data = encoded(Image.fromarray(values), "PNG")
    key = b"tRNS" + (1000).to_bytes(2, "big")
    at = data.index(b"IDAT") - 4
    data = data[:at] + b"\0\0\0\2" + key + zlib.crc32(key).to_bytes(4, "big") + data[at:]
    assert np.asarray(decode(data))[0, :, 0].tolist() == [255, 40_000 >> 8, 1001 >> 8]


def grey_with_alpha() -> Image.Image:
    return Image.merge("LA", (Image.new("L", (8, 8), 0), Image.new("L", (8, 8), 0)))


def palette_with_alpha() -> Image.Image:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 0, 0])
    image.info["transparency"] = 1
    return image


@pytest.mark.parametrize("make", [lambda: Image.new("RGBA", (8, 8), "#00000000"), grey_with_alpha, palette_with_alpha])
def test_what_is_transparent_becomes_white(make: Callable[[], Image.Image]) -> None:
    assert np.asarray(decode(encoded(make(), "PNG"))).min() == 255


def test_half_transparent_black_becomes_middle_grey() -> None:
    levels = np.asarray(decode(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 128)), "PNG")))
    assert set(levels.ravel().tolist()) <= {126, 127, 128}


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_bilevel_grey_and_palette_images_become_rgb(mode: str) -> None:
    image = picture().convert(mode)
    assert difference(decode(encoded(image, "PNG")), image.convert("RGB")) == 0


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_truncated_file_is_broken_and_the_remedy_told(name: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, name)
    with pytest.raises(BrokenImage, match="send the whole file"):
        decode(data[: int(len(data) * share)])


def test_a_corrupt_file_is_broken() -> None:
    data = bytearray(encoded(picture(), "PNG"))
    middle = data.index(b"IDAT") + 8
    data[middle : middle + 40] = bytes(40)
    with pytest.raises(BrokenImage):
        decode(bytes(data))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP"])
def test_random_damage_gives_a_picture_or_a_named_error(name: str) -> None:
    random = np.random.default_rng(7)
    whole = encoded(picture(), name)
    pictures = broken = 0
    for _ in range(150):
        data = bytearray(whole[: random.integers(len(whole) // 2, 2 * len(whole))])
        for at in random.integers(6, random.choice([60, len(data)]), size=random.choice([1, 4])):
            data[at] = random.integers(0, 256)
        try:
            decode(bytes(data))
            pictures += 1
        except (BrokenImage, TooManyPixels, UnsupportedImage):
            broken += 1
    assert broken > 0
    assert pictures + broken == 150


def test_a_crop_is_cut_from_the_upright_photo() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    lying = picture().transpose(Image.Transpose.ROTATE_90)
    left_upper = decode(encoded(lying, "PNG", exif=exif), Crop(x=0, y=0, width=0.25, height=0.5))
    assert difference(left_upper, picture().crop((0, 0, 12, 16))) == 0


def test_a_crop_of_everything_is_everything() -> None:
    assert difference(decode(encoded(picture(), "PNG"), Crop(x=0, y=0, width=1, height=1)), picture()) == 0


@pytest.mark.parametrize(
    ("crop", "box"),
    [
        (Crop(x=0.1, y=0.3, width=0.2, height=0.6), (1, 3, 3, 9)),
        (Crop(x=0.7, y=0.0, width=0.3, height=0.1), (7, 0, 10, 1)),
        (Crop(x=0.5, y=0.5, width=1e-9, height=1e-9), (5, 5, 6, 6)),
        (Crop(x=0.99999999, y=0.99999999, width=1e-8, height=1e-8), (9, 9, 10, 10)),
    ],
)
def test_a_crop_is_the_pixels_that_it_names_and_at_least_one(crop: Crop, box: tuple[int, int, int, int]) -> None:
    image = picture(10, 10)
    assert difference(decode(encoded(image, "PNG"), crop), image.crop(box)) == 0


def test_threads_decode_together() -> None:
    photos = [encoded(picture(40 + i, 30), name) for i in range(4) for name in ("PNG", "WEBP", "AVIF", "GIF")]
    expected = [np.asarray(decode(photo)) for photo in photos]
    matches: list[bool] = []

    def decode_all() -> None:
        matches.extend(np.array_equal(np.asarray(decode(photo)), e) for photo, e in zip(photos, expected, strict=True))

    threads = [threading.Thread(target=decode_all) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert matches == [True] * (6 * len(photos))


VIEW = Transform(0.125, 32, 28, "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def seen(data: bytes, crop: Crop | None = None) -> np.ndarray:
    return decode_pixels(data, VIEW, max_bytes=10_000_000, max_pixels=1_000_000, crop=crop)


def assert_seen_as(data: bytes, crop: Crop | None = None) -> None:
    """Pillow scales the reference; the served pixels are rounded otherwise in places."""
    difference = np.abs(seen(data, crop).astype(int) - VIEW.pixels(decode(data, crop)))
    assert difference.max() <= 1
    assert difference.mean() < 0.2


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP"])
@pytest.mark.parametrize("crop", [None, Crop(x=0.2, y=0.1, width=0.5, height=0.7)])
def test_a_small_photo_is_seen_as_its_decoded_pixels_are(name: str, crop: Crop | None) -> None:
    data = encoded(picture(90, 61), name)
    assert_seen_as(data, crop)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("crop", [None, Crop(x=0.11, y=0.23, width=0.57, height=0.61)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_jpeg_of_any_orientation_is_seen_nearly_as_all_its_pixels_are(
    mode: str, crop: Crop | None, orientation: int
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(picture(640, 480).convert(mode), "JPEG", exif=exif, quality=95)
    difference = np.abs(seen(data, crop).astype(int) - VIEW.pixels(decode(data, crop)))
    assert 0 < difference.mean() < 1
    assert difference.max() <= 6


def test_a_jpeg_whose_sides_can_not_be_halved_is_decoded_whole() -> None:
    data = encoded(picture(641, 481), "JPEG")
    assert_seen_as(data)


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_truncated_large_jpeg_is_broken_though_it_is_decoded_smaller(share: float) -> None:
    data = encoded(picture(640, 480), "JPEG")
    with pytest.raises(BrokenImage, match="send the whole file"):
        seen(data[: int(len(data) * share)])


def test_a_large_jpeg_counts_with_all_its_pixels() -> None:
    with pytest.raises(TooManyPixels):
        seen(encoded(Image.new("L", (1200, 1000)), "JPEG"))
