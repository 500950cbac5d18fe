"""Pillow's scaling filters, twice: Pillow's own code, and the same arithmetic with AVX2, in a fifth of the time.

Pillow is the definition, which training and evaluation use. Searches and imports use the other, whose pixels differ by
one level of 255 in places: the embeddings' cosine stays above 0.999 (tests/unit/test_encoder_photos.py).
"""

from collections.abc import Callable
from threading import local

from cykooz_resizer import CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image

Part = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels and parts of them."""

Scale = Callable[[Image.Image, tuple[int, int], str, Part], Image.Image]
"""Brings a part of an RGB image to a size with a filter: bilinear, bicubic or lanczos. Gives an RGB image."""

_FILTERS = {"bilinear": FilterType.bilinear, "bicubic": FilterType.catmull_rom, "lanczos": FilterType.lanczos3}
_threads = local()  # a resizer keeps its buffers, and serves one thread at a time


def scale_exactly(image: Image.Image, size: tuple[int, int], interpolation: str, part: Part) -> Image.Image:
    """Scale as Pillow does; see `Scale`."""
    return image.resize(size, Image.Resampling[interpolation.upper()], part)


def scale_fast(image: Image.Image, size: tuple[int, int], interpolation: str, part: Part) -> Image.Image:
    """Scale by fast_image_resize, which computes as Pillow does; see `Scale`. Safe to call from several threads."""
    resizer = getattr(_threads, "resizer", None)
    if resizer is None:
        resizer = _threads.resizer = Resizer()
    left, top, right, bottom = part
    options = ResizeOptions()
    options.resize_alg = ResizeAlg.convolution(_FILTERS[interpolation])
    options.crop_box = CropBox(left, top, right - left, bottom - top)
    scaled = Image.new("RGB", size)
    resizer.resize_pil(image, scaled, options)
    return scaled
