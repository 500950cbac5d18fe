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

Fit = Literal["squash", "crop", "pad"]
Interpolation = Literal["bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True, slots=True)
class Transform:
    """Resize to a square, cut out its centre, scale to [0, 1], normalise per channel.

    Attributes:
        resize: side in pixels of the square that the whole image is brought to.
        size: side in pixels of the centre of that square which the network sees; <= resize.
        fit: how an image that isn't square becomes one: `squash` scales each side on its own, `crop` keeps the
            centre, `pad` adds bars of the mean colour of the image's border.
        interpolation: Pillow's filter, with antialiasing when scaling down.
        mean: subtracted from each channel (red, green, blue) of values in [0, 1].
        std: divides each channel thereafter.
    """

    resize: int
    size: int
    fit: Fit
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.fit not in get_args(Fit) or self.interpolation not in get_args(Interpolation):
            raise ValueError(f"unknown fit {self.fit!r} or interpolation {self.interpolation!r}")
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
        resample = Image.Resampling[self.interpolation.upper()]
        square = self._square(image).resize((self.resize, self.resize), resample)
        edge = (self.resize - self.size) // 2
        return np.asarray(square)[edge : edge + self.size, edge : edge + self.size]

    def _square(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        if self.fit == "squash" or width == height:
            return image
        side = min(width, height) if self.fit == "crop" else max(width, height)
        left, top = (width - side) // 2, (height - side) // 2  # negative for pad
        if self.fit == "crop":
            return image.crop((left, top, left + side, top + side))
        square = Image.new("RGB", (side, side), _border_colour(image))
        square.paste(image, (-left, -top))
        return square


def _border_colour(image: Image.Image) -> tuple[int, int, int]:
    pixels = np.asarray(image)  # (h, w, 3)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])  # (2h + 2w, 3)
    red, green, blue = border.mean(axis=0).round().astype(int).tolist()
    return red, green, blue
