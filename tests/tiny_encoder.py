"""An encoder of a few weights, which every runtime makes and opens in moments."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from worker.encoder import BACKBONES, Transform, load_encoder
from worker.encoder.backbones import Backbone
from worker.encoder.torch_encoder import TorchEncoder

SIZE, DIM = 32, 24


def _build() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, DIM // 4, 3, stride=2, padding=1), torch.nn.AvgPool2d(8), torch.nn.Flatten()
    )


def pixels(count: int, size: int = SIZE) -> np.ndarray:
    """Return uint8 (count, size, size, 3), no two alike."""
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


class OnGpu(TorchEncoder):
    """An encoder on a GPU as far as its users see, for machines that have none."""

    def __init__(self, encoder: TorchEncoder) -> None:
        super().__init__(encoder.manifest, encoder.network.model, torch.device("cpu"))
        self._on_cpu = encoder
        self.device = torch.device("cuda")

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        return self._on_cpu.embed(pixels)


@contextmanager
def tiny_encoder(folder: Path) -> Iterator[TorchEncoder]:
    """Register the backbone "tiny", with weights in a folder, and give the reference, for the time of the block."""
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    path = folder / "tiny.pth"
    torch.save(_build().state_dict(), path)
    transform = Transform(0.125, SIZE, SIZE, "bicubic", (0.5, 0.4, 0.45), (0.25, 0.3, 0.2))
    BACKBONES["tiny"] = Backbone(DIM, transform, _build, lambda: path)
    try:
        yield load_encoder("tiny")
    finally:
        del BACKBONES["tiny"]
        torch.set_num_threads(threads)
