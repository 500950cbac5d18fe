"""What the network is fed with: augmented photos, or stored activations of its frozen stages."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from training.augmentation import Augmentation
from training.frozen_stages import learning_part, store_activations
from training.network import TrainedNetwork
from training.pixel_cache import Squares

Progress = Callable[[int, int], None]


class Inputs(ABC):
    """Photos by their rows, and the network that embeds them.

    Attributes:
        network: all layers that `embed` uses.
    """

    network: torch.nn.Module

    @abstractmethod
    def varied(self, rows: np.ndarray, random: np.random.Generator) -> torch.Tensor:
        """Return a batch to learn from; the same state of `random` gives the same batch."""

    @abstractmethod
    def plain(self, rows: np.ndarray) -> torch.Tensor:
        """Return photos as a served network sees them."""

    @abstractmethod
    def embed(self, batch: torch.Tensor) -> torch.Tensor:
        """Turn a batch into float32 (n, dim), rows of L2 norm 1, with gradients."""


class Photos(Inputs):
    """Photos through the whole network, varied anew each time."""

    def __init__(
        self, network: TrainedNetwork, squares: Squares, augmentations: Sequence[Augmentation], threads: int
    ) -> None:
        """Args:
        network: embeds.
        squares: the photos.
        augmentations: how they are varied; one is chosen for each batch.
        threads: how many photos are varied at a time.
        """
        self.network = network
        self._squares = squares
        self._augmentations = augmentations
        self._pool = ThreadPoolExecutor(threads)

    def varied(self, rows: np.ndarray, random: np.random.Generator) -> torch.Tensor:
        """See `Inputs.varied`."""
        augmentation = self._augmentations[int(random.integers(len(self._augmentations)))]
        # One for each photo: whichever thread is first, it looks the same.
        seeds = random.integers(2**63, size=len(rows))

        def vary(row: int, seed: int) -> np.ndarray:
            return augmentation(self._squares.pixels[row], np.random.default_rng(seed))

        return torch.from_numpy(np.stack(list(self._pool.map(vary, rows.tolist(), seeds.tolist()))))

    def plain(self, rows: np.ndarray) -> torch.Tensor:
        """See `Inputs.plain`."""
        return torch.from_numpy(self._squares.centres(rows))

    def embed(self, batch: torch.Tensor) -> torch.Tensor:
        """See `Inputs.embed`."""
        embeddings: torch.Tensor = self.network(batch)
        return embeddings


class StoredViews(Inputs):
    """Activations of the frozen stages for a few views of each photo, through the stages that learn."""

    def __init__(
        self,
        network: TrainedNetwork,
        squares: Squares,
        learned: np.ndarray,
        augmentations: Sequence[Augmentation],
        views: int,
        seed: int,
        folder: Path,
        progress: Callable[[str], Progress],
    ) -> None:
        """Args:
        network: whose frozen stages are computed.
        squares: the photos.
        learned: int64 (m,), the rows that are learned from; only these get views.
        augmentations: make the views, in turn; a batch has views of one of them.
        views: how many of each photo.
        seed: decides the views.
        folder: keeps the activations; 46 KB for a view of lite0 at 192 pixels.
        progress: gives for the name of a step what is told how far it is.
        """
        self.network = learning_part(network)
        self._place = np.full(len(squares.pixels), -1)  # (n,), of a row among those learned from
        self._place[learned] = np.arange(len(learned))
        about = {
            "photos": squares.fingerprint,
            "transform": squares.transform.to_dict(),
            "autocast": torch.is_autocast_enabled(network.mean.device.type),
        }

        def view_of(view: int, augmentation: Augmentation) -> Callable[[int], np.ndarray]:
            return lambda at: augmentation(squares.pixels[learned[at]], np.random.default_rng([seed, view, at]))

        self._views = []
        self._kinds = len(augmentations)
        for view in range(views):
            augmentation = augmentations[view % self._kinds]
            how = {"view": view, "seed": seed, "how": augmentation.to_dict(), "rows": learned.tolist()}
            told = progress(f"View {view + 1} of {views}")
            self._views.append(
                store_activations(network, view_of(view, augmentation), len(learned), folder, about | how, told)
            )
        self._plain = store_activations(
            network,
            lambda row: squares.centres(np.array([row]))[0],
            len(squares.pixels),
            folder,
            about,
            progress("Plain view"),
        )

    def varied(self, rows: np.ndarray, random: np.random.Generator) -> torch.Tensor:
        """See `Inputs.varied`."""
        views = self._views[int(random.integers(self._kinds)) :: self._kinds]
        chosen = random.integers(0, len(views), len(rows))
        return self._batch(np.stack([views[view][row] for view, row in zip(chosen, self._place[rows], strict=True)]))

    def plain(self, rows: np.ndarray) -> torch.Tensor:
        """See `Inputs.plain`."""
        return self._batch(self._plain[rows])

    def embed(self, batch: torch.Tensor) -> torch.Tensor:
        """See `Inputs.embed`."""
        return torch.nn.functional.normalize(self.network(batch).to(torch.float32))

    @staticmethod
    def _batch(activations: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(activations).to(torch.float32).permute(0, 3, 1, 2)
