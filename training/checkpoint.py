"""Checkpoints: all that the next epoch depends on, in one file that is whole or not there."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from training.files import writing_aside
from training.problem import TrainingProblem


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint aside, and rename it: the one before stays until then.

    Args:
        path: whose folder is there.
        state: tensors, numbers, text, lists and dicts.

    Raises:
        TrainingProblem: if it can't be written; the checkpoint before is whole.
    """
    buffer = io.BytesIO()  # written to a full disk, PyTorch's own writer ends the process in some versions
    torch.save(state, buffer)
    try:
        with writing_aside(path) as aside:
            aside.write_bytes(buffer.getbuffer())
    except OSError as error:
        raise TrainingProblem(
            f"{path} can't be written ({error}). The epoch before is kept: free some space "
            f"({len(buffer.getbuffer()) / 2**20:.0f} MiB), then go on with --resume."
        ) from error


def load_checkpoint(path: Path, device: torch.device | None = None) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; nothing in the file is run.

    Raises:
        TrainingProblem: if it is not there or not a checkpoint.
    """
    try:
        if not zipfile.is_zipfile(path):  # of other bytes, PyTorch's reader may raise anything
            raise ValueError("it is not there, or only half a file")
        state = torch.load(path, map_location=device or "cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingProblem(f"{path} can't be read as a checkpoint: {error}") from error
    if not isinstance(state, dict):
        raise TrainingProblem(f"{path} is not a checkpoint.")
    return state


def fit_model(model: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Put the weights of a checkpoint into a model.

    Raises:
        TrainingProblem: if they are of another architecture.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise TrainingProblem(
            f"{path} is of another architecture than its plan: {first} Restore config.json, or train anew."
        ) from error
