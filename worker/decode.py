"""Image bytes to an upright RGB picture; the only decoder, so a photo means the same in a search and in an import."""

import math

import numpy as np
from PIL import Image, ImageFile

from shared.errors import BrokenImage
from shared.image_header import UNREADABLE, open_image
from shared.schemas import Crop

_EXIF_ORIENTATION = 0x0112

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to the turn that undoes it."""


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
        InvalidImage: EmptyImage, ImageTooLarge, UnsupportedImage or TooManyPixels, as `shared.image_header` tells
            them; BrokenImage for a file that is truncated or corrupt anywhere.
    """
    image = open_image(data, max_bytes=max_bytes, max_pixels=max_pixels)
    try:
        image.load()
        upright = _upright(image)
        return _to_rgb(upright if crop is None else upright.crop(_box(upright, crop)))
    except UNREADABLE as error:
        raise BrokenImage(
            f"The {image.format} file is truncated or corrupt. Export the photo again and send the whole file."
        ) from error


def _upright(image: ImageFile.ImageFile) -> Image.Image:
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except UNREADABLE:
        # Damaged camera data is no reason to refuse a photo whose pixels are fine.
        orientation = 1
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


def _box(image: Image.Image, crop: Crop) -> tuple[int, int, int, int]:
    """Return the crop in whole pixels: those that it covers at least in part."""
    left, right = _span(crop.x, crop.width, image.width)
    top, bottom = _span(crop.y, crop.height, image.height)
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
