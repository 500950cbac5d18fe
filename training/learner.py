"""What learns: network, losses and optimiser, put together from a plan."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.augmentation import Augmentation
from training.checkpoint import fit_model
from training.inputs import Inputs, Photos, StoredViews
from training.losses import WeightedLosses
from training.network import TrainedNetwork, build_network, keep_depthwise_exact
from training.objective import Objective
from training.pixel_cache import Squares
from training.plan import Plan

Shown = Callable[[str], Callable[[int, int], None]]
"""Gives for the name of a step what is told how many are done, of how many."""


@dataclass
class Learner:
    """What changes in training, and what is fed to it.

    Attributes:
        network: learns.
        averaged: moving average of the network's weights; None where the plan wants none.
        objective: what is minimised; class losses learn too.
        inputs: batches for the network.
        optimiser: of both.
        classes: int64 (n,) by column, the class of each photo; -1 where it has none.
        learned: int64 (m,), rows to learn from.
        device: where it computes.
        taught: float32 (n, any), a teacher's embeddings of the photos; None without a teacher.
    """

    network: TrainedNetwork
    averaged: torch.optim.swa_utils.AveragedModel | None
    objective: Objective
    inputs: Inputs
    optimiser: torch.optim.Optimizer
    classes: dict[str, np.ndarray]
    learned: np.ndarray
    device: torch.device
    taught: np.ndarray | None = None

    def shared(self) -> Iterator[torch.Tensor]:
        """Yield what each of several processes tracks for itself, not by gradients: buffers and averages."""
        yield from self.network.buffers()
        if self.averaged is not None:
            yield from self.averaged.parameters()
            yield from self.averaged.buffers()

    def state(self) -> dict[str, Any]:
        """Return all that the next epoch depends on."""
        return {
            "model": self.network.model.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged else {},
            "objective": self.objective.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def load(self, state: dict[str, Any], path: Path) -> None:
        """Go back to what `state` gave.

        Raises:
            TrainingProblem: if it is of another architecture.
        """
        fit_model(self.network.model, state["model"], path)
        fit_model(self.objective, state["objective"], path)
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])

    @contextmanager
    def judged(self) -> Iterator[torch.nn.Module]:
        """Give the model that is judged and kept, for the time of the block: with averaged weights if there are any."""
        model = self.network.model
        self.network.eval()
        if self.averaged is None:
            yield model
            return
        learning = copy.deepcopy(model.state_dict())
        try:
            model.load_state_dict(self.averaged.module.state_dict())
            yield model
        finally:
            model.load_state_dict(learning)


def build_learner(
    plan: Plan,
    squares: Squares,
    learned: np.ndarray,
    classes: dict[str, np.ndarray],
    counts: dict[str, int],
    cache: Path,
    device: torch.device,
    shown: Shown,
    taught: np.ndarray | None = None,
) -> Learner:
    """Build what learns, with the weights that training starts from.

    Args:
        plan: what is wanted.
        squares: the photos.
        learned: see `Learner`.
        classes: see `Learner`.
        counts: how many classes each column has.
        cache: folder of stored activations.
        device: where it computes.
        shown: told how far the stored activations are.
        taught: see `Learner`.
    """
    torch.manual_seed(plan.seed)
    network = build_network(
        plan.backbone,
        plan.head,
        squares.transform,
        weights=plan.weights,
        first=plan.first_stage,
        tracks_statistics=plan.tracks_statistics,
    ).to(device)
    if plan.precision == "bfloat16" and device.type == "cpu":
        with _learning_sooner_or_later(network, plan):
            keep_depthwise_exact(network.learning_layers())
    objective = Objective(
        lambda length: WeightedLosses(plan.label, plan.losses, plan.attributes, counts, length),
        plan.embedding_length,
        plan.prefixes,
        plan.teacher_weight,
    ).to(device)
    inputs: Inputs
    augmentations = [Augmentation(size, plan.min_area, plan.jitter) for size in plan.sizes]
    if plan.views:
        with torch.autocast(device.type, torch.bfloat16, enabled=plan.precision == "bfloat16"):
            inputs = StoredViews(network, squares, learned, augmentations, plan.views, plan.seed, cache, shown)
    else:
        inputs = Photos(network, squares, augmentations, plan.threads)
    averaged = averaged_model(network, plan)
    learns_by = optimiser(network, objective, plan)
    return Learner(network, averaged, objective, inputs, learns_by, classes, learned, device, taught)


def averaged_model(network: TrainedNetwork, plan: Plan) -> torch.optim.swa_utils.AveragedModel | None:
    """Return the moving average of weights that the plan wants; it forgets the first weights sooner than later ones."""
    if not plan.average:
        return None

    def mix(old: torch.Tensor, new: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
        decay = min(plan.average, (1 + int(count)) / (10 + int(count)))
        return old + (new - old) * (1 - decay)

    device = next(network.parameters()).device  # its counter as well: processes share it
    return torch.optim.swa_utils.AveragedModel(network.model, device, avg_fn=mix, use_buffers=True)


@contextmanager
def _learning_sooner_or_later(network: TrainedNetwork, plan: Plan) -> Iterator[None]:
    """Let all stages learn that do so in some epoch, for the time of the block."""
    first = network.first
    network.train_from(max(0, first - len(plan.unfreeze_at)))
    try:
        yield
    finally:
        network.train_from(first)


def optimiser(network: TrainedNetwork, objective: Objective, plan: Plan) -> torch.optim.Optimizer:
    """Return AdamW over all stages that learn sooner or later, the head, and the objective's class vectors."""
    with _learning_sooner_or_later(network, plan):
        groups = network.parameter_groups(plan.rate)
    of_classes = list(objective.parameters())
    if of_classes:
        groups.append({"params": of_classes, "lr": 10 * plan.rate, "weight_decay": 0.0})
    for group in groups:
        group["initial_lr"] = group["lr"]
    return torch.optim.AdamW(groups, weight_decay=plan.decay)
