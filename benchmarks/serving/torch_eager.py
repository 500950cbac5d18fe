"""The encoder as people run it first, PyTorch's eager mode; what other runtimes are compared with.

python -m benchmarks.serving.torch_eager BUNDLE PHOTOS SECONDS
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.serving.bundle import Bundle, decode
from worker.encoder.backbones import BACKBONES

BATCH = 8


class TorchEager:
    """A backbone in evaluation mode, nothing else done to it."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        import torch

        from worker.encoder.weights import fill, read_weights

        backbone = BACKBONES[bundle.backbone]
        path = Path(bundle.weights) if bundle.weights else backbone.own_weights()
        torch.set_num_threads(threads)
        self._torch = torch
        self._model = backbone.build()
        fill(self._model, read_weights(path), path, by_order=backbone.by_order)
        self._model.eval()
        self._transform = backbone.transform

    def embed_photos(self, photos: Sequence[bytes]) -> np.ndarray:
        """Decode photos and return their embeddings, float32 (n, dim)."""
        return self.embed(self.inputs([decode(photo) for photo in photos]))

    def inputs(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return the network's input, float32 (n, 3, size, size), in the layout that PyTorch makes by default."""
        return np.ascontiguousarray(self._transform(images))

    def embed(self, inputs: np.ndarray) -> np.ndarray:
        """Return embeddings, float32 (n, dim), of L2 norm 1."""
        torch = self._torch
        with torch.no_grad():
            embeddings: np.ndarray = torch.nn.functional.normalize(self._model(torch.from_numpy(inputs))).numpy()
        return embeddings

    def use_channels_last(self) -> None:
        """Bring the weights to the layout that convolutions on a CPU are fastest with; inputs follow it."""
        self._model.to(memory_format=self._torch.channels_last)


def images_per_second(model: TorchEager, inputs: np.ndarray, seconds: float) -> float:
    """Return how many images a second go through the network alone."""
    model.embed(inputs)
    start, images = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        model.embed(inputs)
        images += len(inputs)
    return images / (time.perf_counter() - start)


def main() -> None:
    """Print rates of the forward pass as JSON."""
    bundle, photos, seconds = Bundle.load(Path(sys.argv[1])), Path(sys.argv[2]), float(sys.argv[3])
    files = [Path(name) for name in photos.read_text(encoding="utf-8").splitlines()][:BATCH]
    model = TorchEager(bundle, bundle.threads)
    inputs = model.inputs([decode(file.read_bytes()) for file in files])
    rates = {
        "eager_batch_8": images_per_second(model, inputs, seconds),
        "eager_batch_1": images_per_second(model, inputs[:1], seconds),
    }
    model.use_channels_last()
    rates["channels_last_batch_8"] = images_per_second(model, inputs, seconds)
    json.dump(rates, sys.stdout)


if __name__ == "__main__":
    main()
