"""The encoder that runs a PyTorch network on the CPU."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from worker.encoder.transform import Transform

# An image of a batch of 8 takes 15% less time than alone; of 32, 30% more, since activations leave the CPU's caches.
BATCH_IMAGES = 8


class TorchEncoder:
    """A network without classifier, in evaluation mode. Implements `worker.encoder.Encoder`."""

    def __init__(self, identity: str, dim: int, model: torch.nn.Module, transform: Transform) -> None:
        """Args:
        identity: names network, weights and transform.
        dim: length of the network's output.
        model: (n, 3, size, size) -> (n, dim). Put into evaluation mode and channels-last layout here.
        transform: what turns images into the network's input.
        """
        self.id = identity
        self.dim = dim
        self.manifest: dict[str, Any] = {"id": identity, "dim": dim, "transform": transform.to_dict()}
        self._model = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self._transform = transform
        self._forward = threading.Lock()

    def encode(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Embed images; see `worker.encoder.Encoder.encode`."""
        embeddings = np.empty((len(images), self.dim), dtype=np.float32)
        for start in range(0, len(images), BATCH_IMAGES):
            stop = min(start + BATCH_IMAGES, len(images))
            batch = torch.from_numpy(self._transform(images[start:stop]))
            # Four forward passes side by side take 20% more CPU time each; transforms may overlap with one.
            with self._forward, torch.inference_mode():
                embeddings[start:stop] = torch.nn.functional.normalize(self._model(batch)).numpy()
        return embeddings
