"""The network in training: a backbone with its head, of which some stages learn."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from training.problem import TrainingProblem
from worker.encoder import BACKBONES, EncoderUnavailable, Transform
from worker.encoder.backbones import Backbone
from worker.encoder.head import Head
from worker.encoder.weights import fill, read_weights


class _InFloat32:
    """A layer that computes in float32 inside of autocast too."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(images.device.type, enabled=False):
            result: torch.Tensor = super().forward(images.float())  # type: ignore[misc]  # of the layer
            return result


def keep_depthwise_exact(layers: Iterable[torch.nn.Module]) -> None:
    """Have depthwise convolutions among some layers compute in float32 even where others compute in bfloat16.

    On a CPU their gradients take 5 times as long in bfloat16, which makes training slower than in float32.
    """
    for layer in layers:
        if isinstance(layer, torch.nn.Conv2d) and layer.groups == layer.in_channels > 1:
            layer.__class__ = type(f"Exact{type(layer).__name__}", (_InFloat32, type(layer)), {})


class TrainedNetwork(torch.nn.Module):
    """From pixels to unit vectors, as `worker.encoder.torch_encoder.Network`, with gradients for some stages.

    Attributes:
        model: backbone and head under the names that an encoder's weights have.
        stages: the backbone's.
        first: number of the first stage that learns; those before it are as they came, batch-norm statistics included.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        model: torch.nn.Module,
        transform: Transform,
        stages: Sequence[Sequence[str]],
        first: int,
        *,
        tracks_statistics: bool,
    ) -> None:
        """Args:
        model: see above.
        transform: gives mean and std.
        stages: see above.
        first: see above.
        tracks_statistics: whether batch-norm layers that learn also normalise by the batch, and track its statistics;
            otherwise they keep those that they came with.

        Raises:
            TrainingProblem: if there is no such stage.
        """
        super().__init__()
        mean, std = transform.levels()
        self.register_buffer("mean", torch.from_numpy(mean), persistent=False)
        self.register_buffer("std", torch.from_numpy(std), persistent=False)
        self.model = model.to(memory_format=torch.channels_last)
        self.stages = stages
        self._tracks_statistics = tracks_statistics
        self.train_from(first)

    def train_from(self, first: int) -> None:
        """Let the stages from `first` on learn, and the head."""
        if not 0 <= first <= len(self.stages):
            raise TrainingProblem(f"There are stages 0 to {len(self.stages)}, and no {first}: {self.stages}")
        self.first = first
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad = not self.is_frozen(name)
        self.train(self.training)

    def is_frozen(self, name: str) -> bool:
        """Return whether a parameter or module of the model belongs to a stage before the first that learns."""
        frozen = [prefix for stage in self.stages[: self.first] for prefix in stage]
        return any(name == prefix or name.startswith(f"{prefix}.") for prefix in frozen)

    def learning_layers(self) -> list[torch.nn.Module]:
        """Return all modules that are not frozen."""
        return [module for name, module in self.model.named_modules() if not self.is_frozen(name)]

    def train(self, mode: bool = True) -> "TrainedNetwork":
        """Switch to training or evaluation; what is frozen stays in evaluation."""
        super().train(mode)
        for name, module in self.model.named_modules():
            is_norm = isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
            if self.is_frozen(name) or (is_norm and not self._tracks_statistics):
                module.training = False
        return self

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn uint8 (n, size, size, 3) into the model's input, float32 (n, 3, size, size), channels last in memory."""
        return ((pixels.to(torch.float32) - self.mean) / self.std).permute(0, 3, 1, 2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn uint8 (n, size, size, 3) into float32 (n, dim), rows of L2 norm 1."""
        return torch.nn.functional.normalize(self.model(self.normalised(pixels)).to(torch.float32))

    def parameter_groups(self, rate: float) -> list[dict[str, object]]:
        """Return what learns for an optimiser: the head ten times as fast as the stages, which know something already.

        Batch-norm's parameters, biases and GeM's power are not pulled to zero by weight decay.
        """
        known = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        of_stages = tuple(prefix for stage in self.stages for prefix in stage)
        groups = []
        for is_new in (False, True):
            for decays in (False, True):
                chosen = [p for n, p in known.items() if n.startswith(of_stages) != is_new and (p.ndim > 1) == decays]
                if chosen:
                    group = {"params": chosen, "lr": rate * (10 if is_new else 1)}
                    groups.append(group if decays else group | {"weight_decay": 0.0})
        return groups


def _own_weights(backbone: Backbone) -> Path:
    try:
        return backbone.own_weights()
    except EncoderUnavailable as error:
        raise TrainingProblem(
            f"{error} In training, --weights names the file, and --backbone another network."
        ) from None


def build_network(
    name: str,
    head: Head,
    transform: Transform,
    *,
    weights: str | None = None,
    first: int | None = None,
    tracks_statistics: bool = True,
) -> TrainedNetwork:
    """Build a backbone with its ImageNet weights and a new head.

    Args:
        name: one of BACKBONES.
        head: pooling and projection.
        transform: the evaluation transform.
        weights: file to start from; None means the backbone's own weights, "none" random ones.
        first: first stage that learns; None means the backbone's own choice.
        tracks_statistics: see `TrainedNetwork`.

    Raises:
        EncoderUnavailable: if the weights are not there or don't fit; the message tells the remedy.
        TrainingProblem: if the backbone can't have that head, or has no such stage.
    """
    backbone: Backbone = BACKBONES[name]
    try:
        model = backbone.build_with(Head())
        if weights != "none":
            path = Path(weights) if weights else _own_weights(backbone)
            fill(model, read_weights(path), path, by_order=backbone.by_order)
        backbone.attach(model, head)
    except ValueError as error:
        raise TrainingProblem(f"{name}: {error}") from error
    start = backbone.trained_from if first is None else first
    return TrainedNetwork(model, transform, backbone.stages, start, tracks_statistics=tracks_statistics)
