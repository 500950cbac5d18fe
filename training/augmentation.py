"""Training's variations of a photo, made from the square that the evaluation transform cuts its centre out of."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

RATIO = 4 / 5
"""Narrowest crop, width to height; the widest is its inverse."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Random resized crop, flip, and jitter of light.

    Hue and saturation are left alone: the colour of a product is what is to be learned.

    Attributes:
        size: side in pixels of what the network is trained with. Smaller than the transform's size it saves time, and
            makes products look as large in training as in evaluation (Touvron et al., "Fixing the train-test
            resolution discrepancy", 2019).
        min_area: smallest share of the square that a crop keeps, in (0, 1].
        jitter: brightness and contrast change by at most this share.
        flips: whether half of the photos are mirrored.
    """

    size: int
    min_area: float = 0.5
    jitter: float = 0.15
    flips: bool = True

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 < self.min_area <= 1 or not 0 <= self.jitter < 1:
            raise ValueError(f"size >= 1, min_area in (0, 1] and jitter in [0, 1) are needed, not {self}")

    def __call__(self, square: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Vary one photo.

        Args:
            square: uint8 (side, side, 3). Not modified.
            random: decides; the same state gives the same result.

        Returns:
            uint8 (size, size, 3).
        """
        side = len(square)
        share = random.uniform(self.min_area, 1)
        widest = abs(math.log(max(RATIO, share)))  # a crop that is wider than this would be wider than the square
        ratio = math.exp(random.uniform(-widest, widest))
        width, height = (min(side, side * math.sqrt(share * r)) for r in (ratio, 1 / ratio))
        left, top = random.uniform(0, side - width), random.uniform(0, side - height)
        image = Image.fromarray(square)
        image = image.resize(
            (self.size, self.size), Image.Resampling.BICUBIC, (left, top, left + width, top + height), reducing_gap=None
        )
        pixels = np.asarray(image)
        if self.flips and random.random() < 0.5:
            pixels = pixels[:, ::-1]
        if self.jitter:
            contrast, brightness = random.uniform(1 - self.jitter, 1 + self.jitter, 2)
            mean = pixels.mean(dtype=np.float64)
            levels = np.arange(256)
            table = ((levels - mean) * contrast + mean) * brightness
            pixels = table.clip(0, 255).round().astype(np.uint8)[pixels]
        return np.ascontiguousarray(pixels)

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as JSON values."""
        return asdict(self)
