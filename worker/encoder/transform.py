"""The evaluation transform: how an upright RGB image becomes the numbers that a network sees.

There is this one definition for import, search and training's evaluation, and its parameters travel in the
release's manifest, so that what is served is what was measured.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

Interpolation = Literal["bilinear", "bicubic", "lanczos"]


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
        batch = np.empty((len(images), self.size, self.size, 3), dtype=np.float32)
        for row, image in zip(batch, images, strict=True):
            row[:] = self._pixels(image)
        batch -= np.array([255 * mean for mean in self.mean], dtype=np.float32)
        batch /= np.array([255 * std for std in self.std], dtype=np.float32)
        return batch.transpose(0, 3, 1, 2)

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

    def _pixels(self, image: Image.Image) -> np.ndarray:
        """Return uint8 (size, size, 3)."""
        if image.mode != "RGB":
            raise ValueError(f"an image must be RGB, but is {image.mode}; decode it with worker.decode")
        edge = (self.resize - self.size) // 2
        return np.asarray(self._square(image))[edge : edge + self.size, edge : edge + self.size]

    def _square(self, image: Image.Image) -> Image.Image:
        """Return the image as a square of side `resize`."""
        short, long = sorted(image.size)
        side = max(short, round(long * (1 - self.trim)))
        width, height = min(image.width, side), min(image.height, side)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        # Scaled before it is padded: the square around a photo of 1 x 1,000,000 pixels would not fit into memory.
        scaled = image.crop((left, top, left + width, top + height)).resize(
            (max(1, round(self.resize * width / side)), max(1, round(self.resize * height / side))),
            Image.Resampling[self.interpolation.upper()],
        )
        if width == height:
            return scaled
        square = Image.new("RGB", (self.resize, self.resize), _border_colour(scaled))
        square.paste(scaled, ((self.resize - scaled.width) // 2, (self.resize - scaled.height) // 2))
        return square


def _border_colour(image: Image.Image) -> tuple[int, int, int]:
    pixels = np.asarray(image)  # (h, w, 3)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])  # (2h + 2w, 3)
    red, green, blue = border.mean(axis=0).round().astype(int).tolist()
    return red, green, blue
