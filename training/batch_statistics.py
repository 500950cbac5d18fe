"""What a batch's embeddings tell of how training goes; the signs of a collapse are seen here first."""

import torch

from training.losses import MARGIN


@torch.no_grad()
def batch_statistics(embeddings: torch.Tensor, classes: torch.Tensor) -> dict[str, float]:
    """Measure a batch.

    Args:
        embeddings: float32 (n, dim), unit rows.
        classes: int64 (n,), of the label.

    Returns:
        The last alone where no photo has another of its class and one of another class beside it.

        active_triplets: share in [0, 1] of photos whose hardest positive is not nearer than their hardest negative by
            the margin.
        hardest_positive, hardest_negative: Euclidean distances in [0, 2], mean over photos.
        spread: 1 minus the length of the mean embedding, in [0, 1]: 0 where all are equal.
    """
    distances = torch.cdist(embeddings, embeddings)  # (n, n)
    is_same = classes[:, None] == classes[None, :]  # (n, n)
    itself = torch.eye(len(classes), dtype=torch.bool, device=classes.device)
    positives = distances.masked_fill(~is_same | itself, -torch.inf).amax(dim=1)  # (n,)
    negatives = distances.masked_fill(is_same, torch.inf).amin(dim=1)  # (n,)
    has_both = torch.isfinite(positives) & torch.isfinite(negatives)
    positives, negatives = positives[has_both], negatives[has_both]
    spread = {"spread": float(1 - embeddings.mean(dim=0).norm())}
    if not has_both.any():
        return spread
    return {
        "active_triplets": float((positives - negatives + MARGIN > 0).float().mean()),
        "hardest_positive": float(positives.mean()),
        "hardest_negative": float(negatives.mean()),
    } | spread
