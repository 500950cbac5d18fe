"""What training minimises, each by its name; pytorch-metric-learning computes them, tests check them by loops.

    triplet-hard      batch-hard triplets, margin 0.3: the hardest positive and negative of each photo
    triplet-semihard  all triplets whose negative is farther than the positive, by less than the margin
    multi-similarity  all pairs, weighted by how hard they are
    arcface           a class vector for each class, with an angular margin
    cross-entropy     a class vector for each class, softmax of cosines with label smoothing: the baseline

All take unit embeddings, float32 (n, dim), and classes, int64 (n,), and give a number >= 0. docs/training.md has the
formulas, their sources, and when to use which.
"""

from collections.abc import Callable, Mapping

import torch
from pytorch_metric_learning import losses, miners, reducers
from pytorch_metric_learning.distances import LpDistance

MARGIN = 0.3
TEMPERATURE = 0.05
SMOOTHING = 0.1

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class _Mined(torch.nn.Module):
    """A triplet loss over what a miner chooses, in Euclidean distance; 0 where it chooses nothing."""

    def __init__(self, miner: torch.nn.Module) -> None:
        super().__init__()
        self._miner = miner
        # The mean over all triplets, satisfied ones too: Hermans et al. (2017), eq. 5.
        self._loss = losses.TripletMarginLoss(MARGIN, distance=LpDistance(), reducer=reducers.MeanReducer())

    def forward(self, embeddings: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self._loss(embeddings, classes, self._miner(embeddings, classes))
        return loss


def _cross_entropy(classes: int, dim: int) -> torch.nn.Module:
    loss: torch.nn.Module = losses.NormalizedSoftmaxLoss(classes, dim, temperature=TEMPERATURE)
    loss.cross_entropy = torch.nn.CrossEntropyLoss(reduction="none", label_smoothing=SMOOTHING)
    return loss


LOSSES: dict[str, Callable[[int, int], torch.nn.Module]] = {
    "triplet-hard": lambda *_: _Mined(miners.BatchHardMiner(distance=LpDistance())),
    "triplet-semihard": lambda *_: _Mined(
        miners.TripletMarginMiner(MARGIN, type_of_triplets="semihard", distance=LpDistance())
    ),
    "multi-similarity": lambda *_: losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5),
    "arcface": lambda classes, dim: losses.ArcFaceLoss(classes, dim, margin=11.5, scale=1 / TEMPERATURE),
    "cross-entropy": _cross_entropy,
}
"""Name -> what makes the loss of so many classes and so long an embedding; a new loss needs an entry here."""


class WeightedLosses(torch.nn.Module):
    """The sum of losses on the label and on attributes, each with its weight."""

    def __init__(
        self,
        label: str,
        of_label: Mapping[str, float],
        of_attributes: Mapping[str, float],
        classes: Mapping[str, int],
        dim: int,
    ) -> None:
        """Args:
        label: column that retrieval is judged by.
        of_label: weight of each of LOSSES on the label.
        of_attributes: weight of cross-entropy on each further column.
        classes: how many classes each column has.
        dim: length of an embedding.
        """
        super().__init__()
        parts = [(label, name, weight) for name, weight in of_label.items()]
        parts += [(column, "cross-entropy", weight) for column, weight in of_attributes.items()]
        self._parts = parts
        self._losses = torch.nn.ModuleList(LOSSES[name](classes[column], dim) for column, name, _ in parts)

    def forward(
        self, embeddings: torch.Tensor, classes: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the sum, and each part of it without its weight.

        Args:
            embeddings: float32 (n, dim), unit rows.
            classes: int64 (n,) by column; -1 where a photo has no value, which that part then passes over.
        """
        total = embeddings.new_zeros(())
        told: dict[str, float] = {}
        for (column, name, weight), loss in zip(self._parts, self._losses, strict=True):
            known = classes[column] >= 0
            # A batch may have no value of a column; the sum keeps it a function of the embeddings.
            part = loss(embeddings[known], classes[column][known]) if known.any() else 0 * embeddings.sum()
            total = total + weight * part
            told[f"loss {name} of {column}"] = float(part.detach())
        return total, told
