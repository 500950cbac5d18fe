"""The training loop. An epoch depends on the state it starts from and on its number alone, so it can be run again."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from training.batch_statistics import batch_statistics
from training.batches import class_batches
from training.learner import Learner
from training.plan import Plan
from training.problem import TrainingProblem
from training.step import backward
from training.turns import Turns
from worker.encoder import BACKBONES

GRADIENT_NORM = 5.0
BEST = "p_at_5"


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: finished epochs.
        best: highest Precision@5 on val.
        best_epoch: the epoch that gave it.
        without_gain: judged epochs since then.
    """

    epoch: int = 0
    best: float = -1.0
    best_epoch: int = 0
    without_gain: int = 0
    figures: dict[str, float] = field(default_factory=dict)


Judge = Callable[[], dict[str, float]]
"""Gives figures of retrieval on val, Precision@5 as BEST."""


def rate_at(step: int, steps: int, warm_up: float) -> float:
    """Return the learning rate of a step as a share of the highest: a linear rise, then half a cosine down to 0."""
    rising = max(1, round(warm_up * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def run_epoch(
    learner: Learner, plan: Plan, epoch: int, turns: Turns, on_step: Callable[[int, int, dict[str, float]], None]
) -> dict[str, float]:
    """Learn from every photo once.

    Args:
        learner: changed in place.
        plan: of the run.
        epoch: number of this epoch, from 0.
        turns: which batches are this process's, where several train together.
        on_step: told after each step: its number, how many there are, its figures.

    Returns:
        Means over the steps: loss and its parts, rate, figures of the batches; seconds of the epoch, and of
        its CPU time.

    Raises:
        TrainingProblem: if a loss or a gradient is no finite number; the epochs before are kept.
    """
    started, computing = time.perf_counter(), time.process_time()
    random = np.random.default_rng([plan.seed, epoch, turns.rank])
    batches = turns.share(
        class_batches(
            learner.classes[plan.label][learner.learned],
            plan.classes,
            plan.photos,
            np.random.default_rng([plan.seed, epoch]),
        )
    )
    learner.network.train()
    every: list[dict[str, float]] = []
    for step, places in enumerate(batches):
        share = rate_at(epoch * len(batches) + step, plan.epochs * len(batches), plan.warm_up)
        for group in learner.optimiser.param_groups:
            group["lr"] = group["initial_lr"] * share
        rows = learner.learned[places]
        classes = {name: torch.from_numpy(of[rows]).to(learner.device) for name, of in learner.classes.items()}
        pixels = learner.inputs.varied(rows, random).to(learner.device)
        taught = None if learner.taught is None else torch.from_numpy(learner.taught[rows]).to(learner.device)

        learner.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(learner.device.type, torch.bfloat16, enabled=plan.precision == "bfloat16"):
            embeddings, loss, parts = backward(learner.inputs, learner.objective, pixels, classes, plan.chunk, taught)
        turns.average_gradients([*learner.network.parameters(), *learner.objective.parameters()])
        if not math.isfinite(loss):
            raise _lost("The loss", str(loss), step, epoch, parts)
        norm = torch.nn.utils.clip_grad_norm_(learner.network.parameters(), GRADIENT_NORM)
        of_classes = [part.grad for part in learner.objective.parameters() if part.grad is not None]
        if not math.isfinite(norm + torch.nn.utils.get_total_norm(of_classes)):
            raise _lost("A gradient", "no finite number", step, epoch, parts)
        learner.optimiser.step()
        if learner.averaged is not None:
            learner.averaged.update_parameters(learner.network.model)

        figures = {
            "loss": loss,
            **parts,
            **batch_statistics(embeddings, classes[plan.label]),
            "rate": share * plan.rate,
        }
        every.append(figures)
        on_step(step + 1, len(batches), figures)
    names = dict.fromkeys(name for figures in every for name in figures)
    means = {name: float(np.mean([figures[name] for figures in every if name in figures])) for name in names}
    return means | {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - computing}


def _lost(what: str, became: str, step: int, epoch: int, parts: dict[str, float]) -> TrainingProblem:
    return TrainingProblem(
        f"{what} became {became} in step {step + 1} of epoch {epoch + 1} ({parts}). Finished epochs are kept. "
        "Try a lower --rate, a longer --warm-up, or --precision float32."
    )


def train(
    learner: Learner,
    plan: Plan,
    progress: Progress,
    judge: Judge,
    *,
    turns: Turns,
    on_step: Callable[[int, int, dict[str, float]], None],
    on_epoch: Callable[[Progress, bool], None],
    stop_after: int | None = None,
) -> None:
    """Train until the last epoch, or until val gets no better.

    Args:
        learner: changed in place.
        plan: of the run.
        progress: where it stands; changed in place.
        judge: asked after every `plan.judge_every` epochs and after the last.
        turns: see `run_epoch`.
        on_step: see `run_epoch`.
        on_epoch: told after each epoch where it stands, and whether it is the best so far; keeps the checkpoint.
        stop_after: epochs of this call; None means all.
    """
    begun = progress.epoch
    while progress.epoch < plan.epochs and progress.without_gain < plan.patience:
        if stop_after is not None and progress.epoch - begun >= stop_after:
            return
        epoch = progress.epoch
        first = first_stage_at(plan, epoch)
        if first != learner.network.first:
            learner.network.train_from(first)
        torch.manual_seed(plan.seed * 1_000_003 + epoch)
        figures = run_epoch(learner, plan, epoch, turns, on_step)
        turns.agree(learner.shared())
        progress.epoch += 1
        is_best = False
        if progress.epoch % plan.judge_every == 0 or progress.epoch == plan.epochs:
            figures |= turns.agree_on(judge(), learner.device)
            is_best = figures[BEST] > progress.best
            progress.without_gain = 0 if is_best else progress.without_gain + 1
            if is_best:
                progress.best, progress.best_epoch = figures[BEST], progress.epoch
        progress.figures = {"epoch": progress.epoch, **figures}
        on_epoch(progress, is_best)


def first_stage_at(plan: Plan, epoch: int) -> int:
    """Return the first stage that learns in an epoch, numbered from 0."""
    start = BACKBONES[plan.backbone].trained_from if plan.first_stage is None else plan.first_stage
    return max(0, start - sum(at <= epoch for at in plan.unfreeze_at))
