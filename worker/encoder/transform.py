"""The evaluation transform: how an upright RGB image becomes the numbers that a network sees.

There is this one definition for import, search and training's evaluation, and its parameters travel in the
release's manifest, so that what is served is what was measured.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil, floor
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from worker.encoder.scaling import Scale, scale_exactly

Interpolation = Literal["bilinear", "bicubic", "lanczos"]

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels."""

_ENOUGH = 2.5
"""How many pixels a reduced image keeps for each that it is scaled to: a JPEG decoder reduces more crudely than the
transform's filter. Smallest cosine with the unreduced image at 1.5: 0.994, at 2: 0.9989, at 2.5: 0.9993."""


@dataclass(frozen=True, slots=True)
class Transform:
    """Make the image square, bring it to size, cut out its centre, scale to [0, 1], normalise per channel.

    An image that isn't square loses both ends of its longer side in equal parts, but no more of it than `trim`;
    if that isn't enough, bars of the mean colour of its border fill the square up. Nothing is distorted.

    Attributes:
        trim: largest share of the longer side that is cut off, in [0, 1]: 0 only pads, 1 only crops.
        resize: side in pixels that the square is brought to.
        size: side in pixels of the centre of that square which the network sees; <= resize.
        interpolation: Pillow's filter, with antialiasing when scaling down.
        mean: subtracted from each channel (red, green, blue) of values in [0, 1].
        std: divides each channel thereafter.
    """

    trim: float
    resize: int
    size: int
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.interpolation not in get_args(Interpolation):
            raise ValueError(f"interpolation must be one of {get_args(Interpolation)}, but is {self.interpolation!r}")
        if not 0 <= self.trim <= 1:
            raise ValueError(f"trim must be in 0..1, but is {self.trim}")
        if not 0 < self.size <= self.resize:
            raise ValueError(f"size must be in 1..resize, but is {self.size} with resize {self.resize}")

    def __call__(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Turn images into one batch.

        Args:
            images: RGB, any sizes. Not modified.

        Returns:
            float32 (n, 3, size, size), normalised. A view with the channels last in memory, which is the layout
            that convolutions on a CPU are fastest with.

        Raises:
            ValueError: if an image is not RGB.
        """
        batch = np.empty((len(images), self.size, self.size, 3), dtype=np.uint8)
        for row, image in zip(batch, images, strict=True):
            row[:] = self.pixels(image)
        return self.normalise(batch)

    def pixels(
        self, image: Image.Image, box: Box | None = None, reduction: int = 1, scale: Scale = scale_exactly
    ) -> np.ndarray:
        """Turn an image into all that a network sees of it, before normalisation.

        Args:
            image: RGB, any size. Not modified.
            box: part of the image to look at, in pixels of the unreduced image; None means all.
            reduction: how many times smaller than the original the image is; it divides the original's sides.
            scale: applies the filter; Pillow's code is the definition.

        Returns:
            uint8 (size, size, 3).

        Raises:
            ValueError: if the image is not RGB.
        """
        if image.mode != "RGB":
            raise ValueError(f"an image must be RGB, but is {image.mode}; decode it with worker.decode")
        edge = (self.resize - self.size) // 2
        return np.asarray(self._square(image, box, reduction, scale))[edge : edge + self.size, edge : edge + self.size]

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """Scale pixels to [0, 1] and normalise each channel.

        Args:
            pixels: uint8 (n, size, size, 3). Not modified.

        Returns:
            float32 (n, 3, size, size). A view with the channels last in memory, which is the layout that
            convolutions on a CPU are fastest with.
        """
        mean, std = self.levels()
        batch = pixels.astype(np.float32)
        batch -= mean
        batch /= std
        return batch.transpose(0, 3, 1, 2)

    def levels(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and std as levels of 0..255, float32 (3,) each: normalised = (level - mean) / std."""
        return np.array([255 * m for m in self.mean], np.float32), np.array([255 * s for s in self.std], np.float32)

    def reduction(self, size: tuple[int, int]) -> int:
        """Return how many times smaller an image of that size may be, at most, and still look the same; >= 1."""
        return max(1, int(self._side(size) / (_ENOUGH * self.resize)))

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as JSON values, for a manifest."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Transform":
        """Return the transform that `to_dict` wrote.

        Raises:
            TypeError: if a parameter is missing or unknown.
            ValueError: if a parameter has no meaning.
        """
        return cls(**values | {name: tuple(values[name]) for name in ("mean", "std") if name in values})

    def to_json(self) -> str:
        """Return the parameters as canonical JSON: equal transforms give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    def _side(self, size: tuple[int, int]) -> int:
        """Return the side of the square that an image of that size becomes, in the image's pixels."""
        return max(min(size), round(max(size) * (1 - self.trim)))

    def _square(self, image: Image.Image, box: Box | None, reduction: int, scale: Scale) -> Image.Image:
        """Return the image as a square of side `resize`."""
        left, top, right, bottom = box or (0, 0, image.width * reduction, image.height * reduction)
        side = self._side((right - left, bottom - top))
        width, height = min(right - left, side), min(bottom - top, side)
        left, top = left + (right - left - width) // 2, top + (bottom - top - height) // 2
        # Scaled before it is padded: the square around a photo of 1 x 1,000,000 pixels would not fit into memory.
        size = (max(1, round(self.resize * width / side)), max(1, round(self.resize * height / side)))
        scaled = self._scaled(image, (left, top, left + width, top + height), reduction, size, scale)
        if width == height:
            return scaled
        square = Image.new("RGB", (self.resize, self.resize), _border_colour(scaled))
        square.paste(scaled, ((self.resize - scaled.width) // 2, (self.resize - scaled.height) // 2))
        return square

    def _scaled(self, image: Image.Image, box: Box, reduction: int, size: tuple[int, int], scale: Scale) -> Image.Image:
        """Cut a box, in pixels of the unreduced image, out of an image and bring it to `size`."""
        left, top, right, bottom = (edge / reduction for edge in box)
        # Cut first: the filter would reach beyond its box into what is not to be seen.
        first = floor(left), floor(top)
        cut = image.crop((*first, ceil(right), ceil(bottom)))
        inner = (left - first[0], top - first[1], right - first[0], bottom - first[1])
        return scale(cut, size, self.interpolation, inner)


def _border_colour(image: Image.Image) -> tuple[int, int, int]:
    pixels = np.asarray(image)  # (h, w, 3)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])  # (2h + 2w, 3)
    red, green, blue = border.mean(axis=0).round().astype(int).tolist()
    return red, green, blue
