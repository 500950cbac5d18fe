"""Frozen stages never change, so what they make of a photo is computed once and read in every epoch.

It is computed for a few augmented views of each photo, so a photo still looks different from epoch to epoch. Most of
the work of an epoch is in the early stages, whose pictures are large.
"""

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from training.files import writing_aside
from training.network import TrainedNetwork

BATCH = 32

Progress = Callable[[int, int], None]


class _Reached(Exception):
    """The first stage that learns was reached; what it was given is known."""


@torch.no_grad()
def frozen_activations(network: TrainedNetwork, pixels: torch.Tensor) -> torch.Tensor:
    """Return what the frozen stages make of uint8 (n, size, size, 3): the input of the first stage that learns."""
    given: list[torch.Tensor] = []

    def keep(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        given.append(inputs[0])
        raise _Reached

    first = network.model.get_submodule(network.stages[network.first][0])
    handle = first.register_forward_pre_hook(keep)
    try:
        network.model(network.normalised(pixels))
    except _Reached:
        return given[0]
    finally:
        handle.remove()
    raise AssertionError("a network runs through all of its stages")


def learning_part(network: TrainedNetwork) -> torch.nn.Module:
    """Return the model without its frozen stages: from their activations to embeddings, with the same parameters."""
    frozen = [name for stage in network.stages[: network.first] for name in stage]
    return _without(network.model, frozen)


def _without(module: torch.nn.Module, names: list[str]) -> torch.nn.Module:
    """Return a shallow copy in which some modules do nothing; all others are the same objects."""
    part = copy.copy(module)
    part._modules = dict(module._modules)
    for child in {name.partition(".")[0] for name in names}:
        if child in names:
            part._modules[child] = torch.nn.Identity()
        elif child in part._modules:
            below = [name.partition(".")[2] for name in names if name.startswith(f"{child}.")]
            part._modules[child] = _without(module.get_submodule(child), below)
    return part


def store_activations(
    network: TrainedNetwork,
    pixels_of: Callable[[int], np.ndarray],
    count: int,
    folder: Path,
    about: dict[str, object],
    progress: Progress = lambda *_: None,
) -> np.ndarray:
    """Compute activations of frozen stages once and keep them in a file.

    Args:
        network: gives them.
        pixels_of: uint8 (size, size, 3) of each of the photos 0 .. count - 1.
        count: how many.
        folder: of the files; they may be deleted at any time.
        about: all that decides what comes out, as JSON values, but for the network's weights.
        progress: told how many are done.

    Returns:
        float16 (count, h, w, c), memory-mapped.

    Raises:
        OSError: if the disk is full.
    """
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in network.model.state_dict().items():
        if network.is_frozen(name):
            digest.update(tensor.cpu().numpy().tobytes())
    path = folder / f"activations-{digest.hexdigest()[:16]}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        network.eval()
        with writing_aside(path) as aside, aside.open("wb") as file:
            for start in range(0, count, BATCH):
                rows = range(start, min(start + BATCH, count))
                pixels = torch.from_numpy(np.stack([pixels_of(row) for row in rows]))
                some = frozen_activations(network, pixels.to(network.mean.device)).permute(0, 2, 3, 1)  # (b, h, w, c)
                values = some.to("cpu", torch.float16).contiguous().numpy()
                if start == 0:
                    header = {"descr": values.dtype.str, "fortran_order": False, "shape": (count, *values.shape[1:])}
                    np.lib.format.write_array_header_2_0(file, header)
                file.write(values.tobytes())
                progress(rows.stop, count)
    activations: np.ndarray = np.load(path, mmap_mode="r")
    return activations
