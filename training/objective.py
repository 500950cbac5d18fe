"""All that a training step minimises: losses of the embedding and of its prefixes, and what a teacher says."""

from collections.abc import Callable, Mapping, Sequence

import torch

from training.losses import WeightedLosses

TEACHER_TEMPERATURE = 0.1


class Objective(torch.nn.Module):
    """The mean of the losses over the lengths that the embedding shall be cut to, and a teacher's part beside."""

    def __init__(
        self,
        losses_of: Callable[[int], WeightedLosses],
        dim: int,
        prefixes: Sequence[int] = (),
        teacher_weight: float = 0.0,
    ) -> None:
        """Args:
        losses_of: makes the losses for an embedding of so many numbers; each length has class vectors of its own.
        dim: length of the whole embedding.
        prefixes: lengths to which it shall be cut without losing much, each below `dim`. Source: Kusupati et al.,
            "Matryoshka Representation Learning", 2022.
        teacher_weight: how much `similarity_divergence` counts, where a teacher is asked.
        """
        super().__init__()
        self._lengths = (dim, *prefixes)
        self._teacher_weight = teacher_weight
        self._losses = torch.nn.ModuleList(losses_of(length) for length in self._lengths)

    def forward(
        self,
        embeddings: torch.Tensor,
        classes: Mapping[str, torch.Tensor],
        taught: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Return what is minimised, and the parts of it: those of the whole embedding, and each prefix's sum.

        Args:
            embeddings: float32 (n, dim), unit rows.
            classes: int64 (n,) by column; -1 where a photo has no value.
            taught: float32 (n, any), a teacher's embeddings of the same photos, unit rows; None without a teacher.
        """
        total = embeddings.new_zeros(())
        told: dict[str, float] = {}
        for length, losses in zip(self._lengths, self._losses, strict=True):
            is_whole = length == self._lengths[0]
            cut = embeddings if is_whole else torch.nn.functional.normalize(embeddings[:, :length])
            loss, parts = losses(cut, classes)
            total = total + loss / len(self._lengths)
            told |= parts if is_whole else {f"loss at {length}": float(loss.detach())}
        if taught is not None:
            divergence = similarity_divergence(embeddings, taught)
            total = total + self._teacher_weight * divergence
            told["loss teacher"] = float(divergence.detach())
        return total, told


def similarity_divergence(embeddings: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
    """Return how far the similarities among some photos are from those that a teacher sees: >= 0, 0 if equal.

    For each photo, the softmax over its cosines with the others at temperature 0.1 is a distribution; this is the mean
    Kullback-Leibler divergence of the student's from the teacher's. Only similarities count, so the two may differ in
    the length of their embeddings. Source: Koohpayegani et al., "CompRess: Self-Supervised Learning by Compressing
    Representations", 2020, with the batch for anchor points.

    Args:
        embeddings: float32 (n, dim), unit rows, n >= 3.
        taught: float32 (n, any), unit rows.
    """
    others = ~torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)

    def log_shares(rows: torch.Tensor) -> torch.Tensor:
        cosines = (rows @ rows.T)[others].view(len(rows), -1)  # (n, n - 1)
        return torch.log_softmax(cosines / TEACHER_TEMPERATURE, dim=1)

    divergence: torch.Tensor = torch.nn.functional.kl_div(
        log_shares(embeddings), log_shares(taught), reduction="batchmean", log_target=True
    )
    return divergence
