"""Several processes that train one network together, started by torchrun; alone, there is nothing to share."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch

LONGEST_WAIT = timedelta(days=1)
"""Of a process for the others: the first decodes all photos while they wait."""


@dataclass(frozen=True)
class Turns:
    """Which part of the work is this process's.

    Attributes:
        rank: number of this process; 0 writes files and speaks.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def share(self, batches: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Return this process's batches: every `count`-th, and as many as each other process has."""
        rounds = max(1, len(batches) // self.count)
        return [batches[(at * self.count + self.rank) % len(batches)] for at in range(rounds)]

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Give all processes the mean of their gradients; they then take the same step. Alone, nothing happens."""
        if self.count == 1:
            return
        for parameter in parameters:
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                torch.distributed.all_reduce(parameter.grad)
                parameter.grad /= self.count

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let the first process go through the block before the others do, for what it leaves in files."""
        if not self.leads:
            torch.distributed.barrier()
        yield
        if self.leads and self.count > 1:
            torch.distributed.barrier()

    def agree_on(self, figures: dict[str, float], device: torch.device) -> dict[str, float]:
        """Return what the first process measured, which all decide by. Alone, these are its own."""
        if self.count == 1:
            return figures
        values = torch.tensor(list(figures.values()), dtype=torch.float32, device=device)
        self.agree([values])
        return dict(zip(figures, values.tolist(), strict=True))

    def agree(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give all processes what the first has, such as its batch-norm statistics. Alone, nothing happens."""
        if self.count > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor, 0)


@contextmanager
def joined() -> Iterator[tuple[Turns, torch.device]]:
    """Join the other processes where torchrun started this one; give its part of the work and its device."""
    has_gpu = torch.cuda.is_available()
    if not torch.distributed.is_torchelastic_launched():
        yield Turns(), torch.device("cuda" if has_gpu else "cpu")
        return
    torch.distributed.init_process_group("nccl" if has_gpu else "gloo", timeout=LONGEST_WAIT)
    try:
        rank, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
        device = torch.device("cuda", rank % torch.cuda.device_count()) if has_gpu else torch.device("cpu")
        if has_gpu:
            torch.cuda.set_device(device)
        yield Turns(rank, count), device
    finally:
        torch.distributed.destroy_process_group()
