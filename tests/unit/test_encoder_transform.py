import json

import numpy as np
import pytest
from PIL import Image, ImageOps

from worker.encoder import Transform


def transform(**changes: object) -> Transform:
    values: dict[str, object] = {
        "trim": 0.25,
        "resize": 16,
        "size": 16,
        "interpolation": "bicubic",
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
    }
    return Transform.from_dict(values | changes)


def picture(width: int, height: int) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 90)], axis=2).astype(np.uint8))


def levels(of: Transform, image: Image.Image) -> np.ndarray:
    """Return what the network sees as (size, size, 3) of 0..255, normalisation undone."""
    batch = of([image])
    return batch[0].transpose(1, 2, 0) * 255


def test_values_are_normalised_per_channel() -> None:
    mean, std = [0.4, 0.5, 0.6], [0.1, 0.2, 0.3]
    image = Image.new("RGB", (16, 16), (255, 51, 0))
    batch = transform(mean=mean, std=std)([image])
    expected = [(value - m) / s for value, m, s in zip([1.0, 0.2, 0.0], mean, std, strict=True)]
    assert batch.shape == (1, 3, 16, 16)
    assert batch.dtype == np.float32
    np.testing.assert_allclose(batch[0, :, 3, 5], expected, rtol=1e-5)


def test_a_square_image_of_the_right_size_is_taken_as_it_is() -> None:
    np.testing.assert_allclose(levels(transform(), picture(16, 16)), np.asarray(picture(16, 16)), atol=1e-3)


def test_the_centre_is_cut_out_after_resizing() -> None:
    image = picture(20, 20)
    seen = levels(transform(resize=20, size=16), image)
    np.testing.assert_allclose(seen, np.asarray(image)[2:18, 2:18], atol=1e-3)


@pytest.mark.parametrize("size", [(60, 45), (45, 60)])
def test_a_phone_photo_of_four_to_three_loses_its_ends_and_gets_no_bars(size: tuple[int, int]) -> None:
    image = picture(*size)
    expected = ImageOps.fit(image, (16, 16), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(levels(transform(trim=0.25), image), np.asarray(expected), atol=3)


def test_without_trim_the_whole_image_is_seen_between_bars_of_its_border_colour() -> None:
    image = Image.new("RGB", (20, 40), (10, 200, 30))
    image.paste((250, 0, 0), (5, 10, 15, 30))
    seen = levels(transform(trim=0), image)
    np.testing.assert_allclose(seen[:, [0, 1, 2, 3, 12, 13, 14, 15]], np.full((16, 8, 3), (10, 200, 30)), atol=5)
    np.testing.assert_allclose(seen[8, 8], (250, 0, 0), atol=5)


def test_beyond_the_trim_bars_fill_up() -> None:
    image = Image.new("RGB", (20, 80), "black")
    image.paste((255, 255, 255), (0, 20, 20, 60))
    seen = levels(transform(trim=0.5), image)  # keeps the middle 40 rows, all white, half as wide as high
    np.testing.assert_allclose(seen, np.full((16, 16, 3), 255), atol=1e-3)


def test_with_full_trim_only_the_centre_is_seen() -> None:
    image = picture(64, 16)
    np.testing.assert_allclose(levels(transform(trim=1), image), np.asarray(image)[:, 24:40], atol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (1, 500_000), (500_000, 1), (3, 2)])
def test_extreme_shapes_need_no_extreme_memory(size: tuple[int, int]) -> None:
    assert np.isfinite(transform()([Image.new("RGB", size, "navy")])).all()


def test_no_images_give_an_empty_batch() -> None:
    assert transform()([]).shape == (0, 3, 16, 16)


def test_images_are_not_modified() -> None:
    image = picture(30, 50)
    transform()([image])
    assert np.array_equal(np.asarray(image), np.asarray(picture(30, 50)))


def test_an_image_that_is_not_rgb_is_refused() -> None:
    with pytest.raises(ValueError, match="must be RGB, but is L"):
        transform()([Image.new("L", (16, 16))])


def test_survives_the_way_through_a_manifest() -> None:
    original = transform(resize=20, mean=[0.1, 0.2, 127 / 255], interpolation="lanczos")
    assert Transform.from_dict(json.loads(json.dumps(original.to_dict()))) == original
    assert json.loads(original.to_json()) == original.to_dict()


@pytest.mark.parametrize(
    "changes", [{"size": 17}, {"size": 0}, {"trim": 1.1}, {"trim": -0.1}, {"interpolation": "nearest"}]
)
def test_parameters_without_meaning_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(changes))} must be"):
        transform(**changes)


def test_an_unknown_parameter_is_refused_and_not_ignored() -> None:
    with pytest.raises(TypeError, match="crop_pct"):
        transform(crop_pct=0.875)


def test_the_batch_is_the_normalised_pixels_of_each_image() -> None:
    of = transform(mean=[0.4, 0.5, 0.6], std=[0.1, 0.2, 0.3])
    images = [picture(30, 50), picture(50, 30)]
    pixels = np.stack([of.pixels(image) for image in images])
    assert pixels.dtype == np.uint8
    before = pixels.copy()
    np.testing.assert_array_equal(of.normalise(pixels), of(images))
    np.testing.assert_array_equal(pixels, before)


def test_a_box_is_seen_as_the_image_that_is_cut_out_by_it() -> None:
    image, box = picture(90, 70), (10, 7, 60, 66)
    np.testing.assert_array_equal(transform().pixels(image, box), transform().pixels(image.crop(box)))


@pytest.mark.parametrize("box", [None, (11, 9, 133, 170)])
def test_a_reduced_image_is_seen_as_the_original_is(box: tuple[int, int, int, int] | None) -> None:
    original = picture(160, 200)
    reduced = original.reduce(2)
    seen, expected = transform().pixels(reduced, box, reduction=2), transform().pixels(original, box)
    assert np.abs(seen.astype(int) - expected).max() <= 2


@pytest.mark.parametrize(
    ("size", "reduction"), [((10, 10), 1), ((40, 40), 1), ((80, 80), 2), ((10, 1000), 18), ((400, 400), 10)]
)
def test_an_image_may_be_reduced_to_two_and_a_half_times_what_it_is_scaled_to(
    size: tuple[int, int], reduction: int
) -> None:
    assert transform().reduction(size) == reduction
