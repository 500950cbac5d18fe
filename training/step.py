"""One step's gradients: directly, or with gradient caching where a batch is larger than memory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import get_device_states, set_device_states

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
            under Memory Limited Setup", 2021), with the same random numbers both times. The gradients are those of the
            whole batch, unless batch-norm tracks statistics: it then normalises each chunk by itself.
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
    firsts, random = [], []
    with torch.no_grad(), _untracked(inputs.network):
        for part in chunks:
            random.append((torch.get_rng_state(), *get_device_states(part)))
            firsts.append(inputs.embed(part))
        cached = torch.cat(firsts).float()
    cached.requires_grad_()
    loss, parts = _loss(objective, cached, classes, taught)
    loss.backward()
    if cached.grad is None:
        raise AssertionError("a loss depends on the embeddings")
    for part, gradient, (state, devices, states) in zip(chunks, cached.grad.split(chunk), random, strict=True):
        torch.set_rng_state(state)
        set_device_states(devices, states)
        inputs.embed(part).backward(gradient)
    return cached.detach(), float(loss.detach()), parts


@contextmanager
def _untracked(network: torch.nn.Module) -> Iterator[None]:
    """Let batch-norm layers leave their running statistics alone: what goes through twice is counted once."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _loss(
    objective: Objective, embeddings: torch.Tensor, classes: Mapping[str, torch.Tensor], taught: torch.Tensor | None
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return loss and parts, in float32 whatever the network computes in: softmax over cosines needs the digits."""
    with torch.autocast(embeddings.device.type, enabled=False):
        loss, parts = objective(embeddings.float(), classes, taught)
    return loss, parts
