"""What a trained network serves with beyond what it was trained with: whitening, a prefix, the mirror image."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from training.problem import TrainingProblem
from worker.encoder.backbones import Backbone
from worker.encoder.head import PROJECTION, WHITENING, Head
from worker.encoder.whitening import whitening_of


@dataclass(frozen=True)
class Additions:
    """What is added to a run's head when it is exported; see `Head`.

    Attributes:
        whitened: numbers to whiten to; None for no whitening.
        prefix: numbers to keep; None means all.
        flips: whether the mirror image is embedded as well.
    """

    whitened: int | None = None
    prefix: int | None = None
    flips: bool = False

    def to(self, head: Head) -> Head:
        """Return a head with these additions."""
        return replace(head, whitened=self.whitened, prefix=self.prefix, flips=self.flips)


AS_TRAINED = Additions()


def with_head(backbone: Backbone, trained: Head, served: Head, state: dict[str, Any], embeddings: np.ndarray) -> Any:
    """Return a network with the head that it is served with.

    Args:
        backbone: of the network.
        trained: the head that it was trained with.
        served: what `Additions.to` made of that.
        state: weights of the trained network, by its names.
        embeddings: float32 (n, dim), unit rows: what the trained network makes of the photos that it learned from.

    Raises:
        TrainingProblem: if the additions don't fit the network or the photos.
    """
    weights = dict(state)
    name = backbone.classifier
    try:
        if served.whitened is not None or served.prefix is not None:  # the last layers are several, each with a name
            for key in [key for key in state if key.startswith(f"{name}.")]:
                own = key.removeprefix(f"{name}.")
                weights[f"{name}.{PROJECTION}.{own}"] = weights.pop(key)
        if served.whitened is not None:
            for key, tensor in whitening_of(embeddings, served.whitened).items():
                weights[f"{name}.{WHITENING}.{key}"] = tensor
        model: torch.nn.Module = backbone.build_with(served)
    except ValueError as error:
        raise TrainingProblem(f"That head can't be: {error}.") from error
    model.load_state_dict(weights)
    return model
