"""Weights files: reading them without running code from them, and fitting them into a network."""

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from worker.encoder.encoder import EncoderUnavailable

if TYPE_CHECKING:
    import torch

_COUNTER = "num_batches_tracked"
"""BatchNorm's counter of training steps; evaluation never reads it and old files lack it."""


def read_weights(path: Path) -> "dict[str, torch.Tensor]":
    """Read a .safetensors file or a PyTorch state dict (.pth, .pt), in the file's order.

    Raises:
        EncoderUnavailable: if the file is no such thing, or holds more than tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise EncoderUnavailable(f"{path} can't be read as weights: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise EncoderUnavailable(f"{path} is not a state dict: a mapping of parameter names to tensors is needed.")
    return state


def fill(model: "torch.nn.Module", state: "dict[str, torch.Tensor]", path: Path, *, by_order: bool) -> None:
    """Put weights into a network that has no classifier; what the file holds for a classifier is left over.

    Args:
        model: changed in place.
        state: weights by name. Those of modules that the network lacks, such as a classifier, may be left over.
        path: where they are from, for messages.
        by_order: if the names are not the network's own, take the parameters one after the other; each pair
            must agree in kind (weight, bias, running_mean, running_var) and in shape.

    Raises:
        EncoderUnavailable: if the weights don't fit, naming the first that doesn't.
    """
    known = model.state_dict()
    wanted = {name: tensor for name, tensor in known.items() if not name.endswith(_COUNTER)}
    missing = [name for name in wanted if name not in state]
    if missing and by_order:
        state = _renamed(state, list(wanted)) or state
        missing = [name for name in wanted if name not in state]
    if missing:
        more = f", nor {len(missing) - 1} more of {len(wanted)} parameters" if len(missing) > 1 else ""
        raise EncoderUnavailable(f"{path} does not fit the encoder: it has no {missing[0]!r}{more}.")
    for name, tensor in wanted.items():
        if state[name].shape != tensor.shape:
            raise EncoderUnavailable(
                f"{path} does not fit the encoder: {name!r} has shape {tuple(state[name].shape)}, "
                f"but {tuple(tensor.shape)} is needed."
            )
    parts = {name.partition(".")[0] for name in wanted}
    deeper = [name for name in state if name not in known and name.partition(".")[0] in parts]
    if deeper:
        raise EncoderUnavailable(
            f"{path} does not fit the encoder: it is of a larger network, with "
            f"{deeper[0]!r} and {len(deeper) - 1} more."
        )
    model.load_state_dict({name: state[name] for name in wanted}, strict=False)


_CLASSIFIER = 2  # parameters of a last layer: weight and bias


def _renamed(state: "dict[str, torch.Tensor]", names: list[str]) -> "dict[str, torch.Tensor] | None":
    """Return the first tensors under these names, in order; None if their kinds don't
    agree with the names, or more are left over than a classifier's.
    """
    tensors = [item for item in state.items() if not item[0].endswith(_COUNTER)]
    if len(tensors) > len(names) + _CLASSIFIER:
        return None
    tensors = tensors[: len(names)]
    kinds = [name.rpartition(".")[2] for name, _ in tensors]
    if kinds != [name.rpartition(".")[2] for name in names]:
        return None
    return {name: tensor for name, (_, tensor) in zip(names, tensors, strict=True)}
