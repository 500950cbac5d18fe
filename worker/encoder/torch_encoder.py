"""The runtime torch: the reference on a CPU, and what a GPU runs."""

import threading
from typing import Any

import numpy as np
import torch

from worker.encoder.encoder import Encoder
from worker.encoder.head import Head
from worker.encoder.transform import Transform


class Network(torch.nn.Module):
    """From pixels to unit vectors; what torch runs, and what is exported for the other runtimes."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: torch.nn.Module, transform: Transform, flips: bool = False) -> None:
        """Args:
        model: (n, 3, size, size) normalised -> (n, dim). Put into evaluation mode and channels-last layout here.
        transform: gives mean and std.
        flips: whether an embedding is that of the photo and its mirror image together.
        """
        super().__init__()
        mean, std = transform.levels()
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("std", torch.from_numpy(std))
        self.flips = flips
        self.model = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn uint8 (n, size, size, 3) into float32 (n, dim), rows of L2 norm 1."""
        levels = (pixels.to(torch.float32) - self.mean) / self.std
        # A permuted view has its channels last in memory, the layout that convolutions are fastest with.
        embeddings = self.model(levels.permute(0, 3, 1, 2)).to(torch.float32)
        if self.flips:
            embeddings = embeddings + self.model(levels.flip(2).permute(0, 3, 1, 2)).to(torch.float32)
        return torch.nn.functional.normalize(embeddings)


class TorchEncoder(Encoder):
    """A network without classifier, run by PyTorch."""

    def __init__(
        self,
        manifest: dict[str, Any],
        model: torch.nn.Module,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Args:
        manifest: see `Encoder`.
        model: see `Network`.
        device: None means the fastest there is.
        dtype: float32, or bfloat16 for autocast: another function (cosine 0.999), so under another id.
        """
        super().__init__(manifest)
        self.device = device or fastest_device()
        self.dtype = dtype
        flips = Head(**manifest.get("head", {})).flips
        self.network = Network(model, self.transform, flips).to(self.device)
        self._forward = threading.Lock()

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """Run the network; see `Encoder.embed`."""
        self._check(pixels)
        if len(pixels) == 0:
            return np.empty((0, self.dim), dtype=np.float32)
        autocast = torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)
        # Four forward passes side by side take 20% more CPU time each than in turn.
        with self._forward, torch.inference_mode(), autocast:
            batch = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).to(self.device)
            embeddings: np.ndarray = self.network(batch).cpu().numpy()
            return embeddings


def fastest_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
