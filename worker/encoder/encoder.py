"""The interface that search, import and training know: images in, embeddings out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from worker.encoder.transform import Transform

# Measured at 1 to 32: a batch of 8 costs the least CPU time an image; larger ones leave the CPU's caches.
BATCH_IMAGES = 8


class EncoderUnavailable(RuntimeError):
    """The encoder can't be loaded; the message says what to install, download or set."""


class Encoder(ABC):
    """A network with its weights and its transform, and a runtime that runs it.

    Attributes:
        id: names the function: network, weights, transform, and its precision if that is not float32; embeddings
            of different ids must never be compared.
        dim: length of an embedding.
        manifest: what a release records of it, as JSON values: id, base_id, backbone, runtime, dim and the
            transform's parameters at least.
        transform: what turns images into the network's input.
        passes_at_once: forward passes that may run side by side; one more waits for another to end.
    """

    id: str
    dim: int
    manifest: dict[str, Any]
    transform: Transform
    passes_at_once: int = 1

    def __init__(self, manifest: dict[str, Any]) -> None:
        """Args:
        manifest: with id, dim and transform; kept as it is.
        """
        self.id = manifest["id"]
        self.dim = manifest["dim"]
        self.manifest = manifest
        self.transform = Transform.from_dict(manifest["transform"])

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Turn an image into what the network sees of it. Safe to call from several threads, and side by side.

        Args:
            image: upright RGB image of any size, as `worker.decode` gives it. Not modified.

        Returns:
            uint8 (size, size, 3).

        Raises:
            ValueError: if the image is not RGB.
        """
        return self.transform.pixels(image)

    @abstractmethod
    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """Run the network. Safe to call from several threads; a pass is as large as given.

        Args:
            pixels: uint8 (n, size, size, 3), what `pixels` made of n images; n may be 0. Not modified.

        Returns:
            float32 (n, dim), rows of L2 norm 1, owned by the caller. A row does not depend on the other images of
            the call, apart from rounding: cosine > 0.9999 in float32; what an int8 network keeps is in its manifest.

        Raises:
            ValueError: if shape or dtype of pixels is not as above.
        """

    def encode(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Embed images, in batches of a size that the CPU is fastest with.

        Args:
            images: upright RGB images of any sizes, as `worker.decode` gives them. Not modified. May be empty.

        Returns:
            float32 (n, dim), as `embed` gives it; (0, dim) for no images.

        Raises:
            ValueError: if an image is not RGB.
        """
        embeddings = np.empty((len(images), self.dim), dtype=np.float32)
        for start in range(0, len(images), BATCH_IMAGES):
            batch = np.stack([self.pixels(image) for image in images[start : start + BATCH_IMAGES]])
            embeddings[start : start + len(batch)] = self.embed(batch)
        return embeddings

    def _check(self, pixels: np.ndarray) -> None:
        size = self.transform.size
        if pixels.dtype != np.uint8 or pixels.shape != (len(pixels), size, size, 3):
            raise ValueError(f"pixels must be uint8 (n, {size}, {size}, 3), but are {pixels.dtype} {pixels.shape}")
