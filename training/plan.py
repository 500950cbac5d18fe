"""All that decides what a training run does; with the same plan, data and machine, the same encoder comes out."""

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from training.losses import LOSSES
from training.problem import TrainingProblem
from worker.encoder import BACKBONES
from worker.encoder.head import Head

Precision = Literal["float32", "bfloat16"]

TRAINED_TO_SERVED = 6 / 7

_TUPLES = ("unfreeze_at", "prefixes", "more_sizes")


@dataclass(frozen=True)
class Plan:
    """What to train, on what, and how; kept in the run's folder as config.json.

    Attributes:
        data: CSV file or folder, as text.
        label: column that retrieval is judged by.
        attributes: weight of cross-entropy on each further column.
        item_column, image_column, split_column: as in `Columns`.
        backbone: one of BACKBONES.
        weights: file to start from; None the backbone's own, "none" random ones.
        pooling: as in `Head`.
        dim: as in `Head`.
        size: side of the pictures that it serves, in pixels; None the backbone's own. The square that they are cut
            from grows or shrinks along.
        first_stage: first stage that learns; None the backbone's choice.
        unfreeze_at: epochs at whose start one more stage begins to learn.
        tracks_statistics: whether batch-norm layers that learn track the batches' statistics.
        losses: weight of each of LOSSES on the label.
        prefixes: lengths that the embedding shall be cut to without losing much; see `Objective`.
        teacher: encoder whose similarities are learned as well, as for `open_judged`; None for none.
        teacher_weight: how much that counts.
        train_size: side of the pictures that it learns from, in pixels; None for six sevenths of what is served, since
            random crops zoom in, or for all of it where the backbone takes no other.
        more_sizes: further sides; each batch has one of all sides, so that products are learned at several scales.
        min_area, jitter: as in `Augmentation`.
        views: stored views of each photo for the frozen stages; 0 computes them anew for each batch.
        classes, photos: P and K of a batch.
        chunk: photos that go through the network at once, with gradient caching; 0 the whole batch.
        epochs: passes over the photos; the learning rate falls to 0 at their end.
        rate: learning rate of AdamW at its highest.
        decay: weight decay.
        warm_up: share of all steps in which the rate rises.
        average: decay of the moving average of weights, which is then what is judged and kept; 0 for none.
        patience: judged epochs without a better Precision@5 on val before it stops.
        judge_every: epochs between judgements; the last is always judged.
        precision: what the network computes in.
        seed: decides batches, variations and new weights.
        threads: CPU threads.
    """

    data: str
    label: str = "article_type"
    attributes: dict[str, float] = field(default_factory=dict)
    item_column: str = "id"
    image_column: str = "image"
    split_column: str | None = "split"
    backbone: str = "tf_efficientnet_lite0"
    weights: str | None = None
    pooling: Literal["average", "gem"] = "average"
    dim: int | None = None
    size: int | None = None
    first_stage: int | None = None
    unfreeze_at: tuple[int, ...] = ()
    tracks_statistics: bool = True
    losses: dict[str, float] = field(default_factory=lambda: {"triplet-hard": 1.0})
    prefixes: tuple[int, ...] = ()
    teacher: str | None = None
    teacher_weight: float = 1.0
    train_size: int | None = None
    more_sizes: tuple[int, ...] = ()
    min_area: float = 0.5
    jitter: float = 0.15
    views: int = 0
    classes: int = 16
    photos: int = 4
    chunk: int = 0
    epochs: int = 10
    rate: float = 3e-4
    decay: float = 0.05
    warm_up: float = 0.05
    average: float = 0.0
    patience: int = 5
    judge_every: int = 1
    precision: Precision = "float32"
    seed: int = 0
    threads: int = 2

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise TrainingProblem(f"There is no backbone {self.backbone!r}; choose one of {', '.join(BACKBONES)}.")
        problems = [*self._numbers_out_of_range(), *self._problems()]
        if problems:
            raise TrainingProblem(" ".join(problems))

    def _numbers_out_of_range(self) -> Iterator[str]:
        for name in ("epochs", "judge_every", "patience", "threads", "train_size", "size", "dim"):
            if (value := getattr(self, name)) is not None and value < 1:
                yield f"{name} must be at least 1, not {value}."
        for name in ("views", "chunk", "seed", "decay"):
            if getattr(self, name) < 0:
                yield f"{name} must be at least 0, not {getattr(self, name)}."
        for name in ("jitter", "average", "warm_up"):
            if not 0 <= getattr(self, name) < 1:
                yield f"{name} must be at least 0 and below 1, not {getattr(self, name)}."
        if not 0 < self.min_area <= 1:
            yield f"min_area must be above 0 and at most 1, not {self.min_area}."
        if not 0 < self.rate < math.inf:
            yield f"rate must be above 0, not {self.rate}."
        head_learns = not self.views and (self.dim is not None or self.pooling == "gem")
        last = len(BACKBONES[self.backbone].stages) - (0 if head_learns else 1)
        if self.first_stage is not None and not 0 <= self.first_stage <= last:
            yield f"first_stage must be in 0 to {last} for {self.backbone}, not {self.first_stage}."

    def _problems(self) -> list[str]:
        problems = []
        own = BACKBONES[self.backbone]
        if own.takes_one_size and {self.size or own.transform.size, *self.sizes} != {own.transform.size}:
            problems.append(f"{self.backbone} takes pictures of {own.transform.size} pixels only.")
        if own.pool is None and self.views:
            problems.append(f"{self.backbone} is no chain of stages whose views could be stored; leave out --views.")
        unknown = [name for name in self.losses if name not in LOSSES]
        if unknown or not self.losses:
            problems.append(f"There is no loss {', '.join(unknown) or 'given'}; choose among {', '.join(LOSSES)}.")
        if any(not weight > 0 for weight in (*self.losses.values(), *self.attributes.values())):
            problems.append("Weights of losses must be above 0; leave a loss out instead.")
        if self.label in self.attributes:
            problems.append(f"{self.label} is the label already; it can't be an attribute beside.")
        if self.views and self.unfreeze_at:
            problems.append("Stored views are of frozen stages: --views and --unfreeze-at don't go together.")
        if any(not 0 < length < self.embedding_length for length in self.prefixes):
            problems.append(f"A prefix must be shorter than the embedding, which has {self.embedding_length} numbers.")
        if not self.teacher_weight > 0:
            problems.append("The teacher's weight must be above 0; leave the teacher out instead.")
        if self.precision not in get_args(Precision):
            problems.append(f"precision must be one of {', '.join(get_args(Precision))}.")
        if any(side < 1 for side in self.more_sizes):
            problems.append("Pictures have sides of at least 1 pixel.")
        if 0 < self.views < len(self.sizes):
            problems.append(f"Pictures of {len(self.sizes)} sizes need as many stored views at least: --views.")
        if self.classes < 2 or self.photos < 2:
            problems.append("A batch needs at least 2 classes and 2 photos of each.")
        return problems

    @property
    def head(self) -> Head:
        """The network's head."""
        return Head(self.pooling, self.dim)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the pictures that it learns from, in pixels."""
        own = BACKBONES[self.backbone]
        served = self.size or own.transform.size
        usual = served if own.takes_one_size else max(1, round(served * TRAINED_TO_SERVED))
        return (self.train_size or usual, *self.more_sizes)

    @property
    def embedding_length(self) -> int:
        """How many numbers an embedding has in training."""
        return self.head.length(BACKBONES[self.backbone].dim)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return dataclasses.asdict(self) | {name: list(getattr(self, name)) for name in _TUPLES}


def read_plan(path: Path) -> Plan:
    """Read the plan of a run.

    Raises:
        TrainingProblem: if it is not there, or not of this version.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))["plan"]
        return Plan(**values | {name: tuple(values.get(name, ())) for name in _TUPLES})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingProblem(
            f"{path} is not the plan of a run ({error}). Name a folder that training wrote."
        ) from error
