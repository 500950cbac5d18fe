"""Image bytes to an upright RGB picture; the only decoder, so a photo means the same in a search and in an import."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from shared.errors import BrokenImage
from shared.image_header import UNREADABLE, open_image
from shared.schemas import Crop
from worker.encoder.scaling import scale_fast
from worker.encoder.transform import Transform

_EXIF_ORIENTATION = 0x0112

_UPRIGHT: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation, which may be anything in a damaged file, to the turn that undoes it."""
_LYING = (5, 6, 7, 8)
"""Those whose width is the upright photo's height."""


def decode_image(data: bytes, *, max_bytes: int, max_pixels: int, crop: Crop | None = None) -> Image.Image:
    """Decode a photo to what a person sees, as 8-bit RGB.

    EXIF orientation is applied; of an animation the first frame is taken; transparency becomes white, as
    catalogue photos have it; 16-bit greys are scaled, not clipped. Colour profiles are not applied.

    Args:
        data: the whole file.
        max_bytes: most bytes that are accepted.
        max_pixels: most pixels (width x height) that are accepted.
        crop: wanted part as fractions of the upright photo; None means all. At least one pixel is kept.

    Returns:
        An image of mode RGB. Nothing is shared between calls, so threads may call this together.

    Raises:
        InvalidImage: EmptyImage, ImageTooLarge, UnsupportedImage, TooManyPixels or TooManyParts, as
            `shared.image_header` tells them; BrokenImage for a file that is truncated or corrupt anywhere.
    """
    image = open_image(data, max_bytes=max_bytes, max_pixels=max_pixels)
    with _broken_if_unreadable(image):
        upright = _upright(image)
        return _to_rgb(upright if crop is None else upright.crop(_box(upright.size, crop)))


def decode_pixels(
    data: bytes, transform: Transform, *, max_bytes: int, max_pixels: int, crop: Crop | None = None
) -> np.ndarray:
    """Decode a photo to what a network sees of it: `transform.pixels(decode_image(...))`, sooner.

    A JPEG of many more pixels than the transform keeps is decoded at a half, a quarter or an eighth of its size, and
    what is left is scaled with AVX2 (worker/encoder/scaling.py). The embedding keeps a cosine of 0.999 with that of all
    pixels, scaled by Pillow; a photo of 22 megapixels takes 30 ms instead of 200.

    Args:
        data: the whole file.
        transform: the encoder's.
        max_bytes: most bytes that are accepted.
        max_pixels: most pixels (width x height) that are accepted.
        crop: see `decode_image`.

    Returns:
        uint8 (size, size, 3), as `Transform.pixels` gives it. Safe to call from several threads.

    Raises:
        InvalidImage: see `decode_image`.
    """
    image = open_image(data, max_bytes=max_bytes, max_pixels=max_pixels)
    with _broken_if_unreadable(image):
        reduction = _reduce(image, transform, crop) if isinstance(image, JpegImageFile) else 1
        upright = _to_rgb(_upright(image))
    full_size = upright.width * reduction, upright.height * reduction
    return transform.pixels(upright, _box(full_size, crop) if crop else None, reduction, scale_fast)


def _reduce(image: JpegImageFile, transform: Transform, crop: Crop | None) -> int:
    """Have a JPEG decoded as small as the transform allows, before it is loaded; return how many times smaller."""
    size = width, height = image.size
    if crop is not None:
        left, top, right, bottom = _box((height, width) if _orientation(image) in _LYING else size, crop)
        size = right - left, bottom - top
    most = transform.reduction(size)
    # Only where nothing is left over at the edges: it would move every pixel by a part of one.
    reduction = next(n for n in (8, 4, 2, 1) if n <= most and width % n == height % n == 0)
    if reduction > 1:
        image.draft(None, (width // reduction, height // reduction))
    return reduction


@contextmanager
def _broken_if_unreadable(image: ImageFile.ImageFile) -> Iterator[None]:
    try:
        yield
    except UNREADABLE as error:
        raise BrokenImage(
            f"The {image.format} file is truncated or corrupt. Export the photo again and send the whole file."
        ) from error


def _upright(image: ImageFile.ImageFile) -> Image.Image:
    """Decode the pixels and undo the EXIF orientation."""
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: ImageFile.ImageFile) -> object:
    try:
        return image.getexif().get(_EXIF_ORIENTATION)
    except UNREADABLE:
        # Damaged camera data is no reason to refuse a photo whose pixels are fine.
        return None


def _box(size: tuple[int, int], crop: Crop) -> tuple[int, int, int, int]:
    """Return the crop in whole pixels of an upright photo of that size: those that it covers at least in part."""
    left, right = _span(crop.x, crop.width, size[0])
    top, bottom = _span(crop.y, crop.height, size[1])
    return left, top, right, bottom


def _span(start: float, length: float, pixels: int) -> tuple[int, int]:
    # The margin forgives sums like 0.1 + 0.2, which would otherwise reach into one more pixel.
    first = min(math.floor(start * pixels + 1e-6), pixels - 1)
    return first, max(first + 1, min(math.ceil((start + length) * pixels - 1e-6), pixels))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I;16":
        image = _eight_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Keep the high byte of 16-bit grey, where Pillow's own conversion would clip; a transparent grey becomes alpha."""
    values = np.asarray(image)  # (h, w)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey
