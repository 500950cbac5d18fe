"""One step's gradients: directly, or with gradient caching where a batch is larger than memory."""

from collections.abc import Mapping

import torch

from training.inputs import Inputs
from training.objective import Objective


def backward(
    inputs: Inputs,
    objective: Objective,
    batch: torch.Tensor,
    classes: Mapping[str, torch.Tensor],
    chunk: int = 0,
    taught: torch.Tensor | None = None,
) -> tuple[torch.Tensor, float, dict[str, float]]:
    """Compute the loss of a batch, and leave its gradients in the parameters.

    Args:
        inputs: embed the batch.
        objective: of the embeddings.
        batch: what `inputs` gave for n photos.
        classes: int64 (n,) by column.
        chunk: with a number, so many photos at a time go through the network, twice: first for the embeddings alone,
            whose gradients are kept, then to carry these on (Gao et al., "Scaling Deep Contrastive Learning Batch Size
            under Memory Limited Setup", 2021). The gradients are those of the whole batch; batch-norm that tracks
            statistics sees each chunk by itself, though.
        taught: float32 (n, any), what a teacher makes of the photos; None without a teacher.

    Returns:
        Embeddings float32 (n, dim) without gradients, the loss, and its parts.
    """
    if not chunk or chunk >= len(batch):
        embeddings = inputs.embed(batch)
        loss, parts = _loss(objective, embeddings, classes, taught)
        loss.backward()
        return embeddings.detach().float(), float(loss.detach()), parts
    chunks = batch.split(chunk)
    with torch.no_grad():
        cached = torch.cat([inputs.embed(part) for part in chunks]).float()
    cached.requires_grad_()
    loss, parts = _loss(objective, cached, classes, taught)
    loss.backward()
    if cached.grad is None:
        raise AssertionError("a loss depends on the embeddings")
    for part, gradient in zip(chunks, cached.grad.split(chunk), strict=True):
        inputs.embed(part).backward(gradient)
    return cached.detach(), float(loss.detach()), parts


def _loss(
    objective: Objective, embeddings: torch.Tensor, classes: Mapping[str, torch.Tensor], taught: torch.Tensor | None
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return loss and parts, in float32 whatever the network computes in: softmax over cosines needs the digits."""
    with torch.autocast(embeddings.device.type, enabled=False):
        loss, parts = objective(embeddings.float(), classes, taught)
    return loss, parts
