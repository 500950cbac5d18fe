"""The interface that search, import and training know: images in, embeddings out."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image


class EncoderUnavailable(RuntimeError):
    """The encoder can't be loaded; the message says what to install, download or set."""


class Encoder(Protocol):
    """A network with its weights and its transform.

    Attributes:
        id: names network, weights and transform; embeddings of different ids must never be compared.
        dim: length of an embedding.
        manifest: what a release records of it, as JSON values: id, dim and the transform's parameters.
    """

    id: str
    dim: int
    manifest: dict[str, Any]

    def encode(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Embed images. Safe to call from several threads together.

        Args:
            images: upright RGB images of any sizes, as `worker.decode` gives them. Not modified. May be empty.

        Returns:
            float32 (n, dim), rows of L2 norm 1; (0, dim) for no images. An image's row does not depend
            on the other images of the call, apart from rounding (cosine > 0.9999).

        Raises:
            ValueError: if an image is not RGB.
        """
        ...
