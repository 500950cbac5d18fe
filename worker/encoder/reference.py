"""The torch reference: an encoder from a weights file, a trained encoder's folder, or what a package holds."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.encoder.backbones import find_backbone
from worker.encoder.encoder import EncoderUnavailable
from worker.encoder.head import Head
from worker.encoder.own_weights import WEIGHTS_SETTING
from worker.encoder.transform import Transform

if TYPE_CHECKING:
    from worker.encoder.torch_encoder import TorchEncoder


def load_encoder(
    name: str, weights_path: Path | None = None, threads: int = 1, transform: Transform | None = None
) -> "TorchEncoder":
    """Load a backbone with its weights into PyTorch in float32, ready to encode: the reference for every other runtime.

    Args:
        name: one of BACKBONES.
        weights_path: .safetensors or .pth file, or the folder of a trained encoder, which brings its transform
            along; None means the backbone's own ImageNet weights.
        threads: CPU threads of one forward pass. PyTorch keeps one such number for the whole process.
        transform: None means the backbone's own.

    Raises:
        EncoderUnavailable: if the weights are not there or don't fit; the message tells the remedy.
    """
    import torch

    from worker.encoder.torch_encoder import TorchEncoder
    from worker.encoder.weights import fill, read_weights

    backbone = find_backbone(name)
    path = weights_path or backbone.own_weights()
    if path.is_dir():
        return _load_folder(name, path, threads)
    identity = encoder_id(name, path, transform)
    torch.set_num_threads(threads)
    model = backbone.build()
    fill(model, read_weights(path), path, by_order=backbone.by_order)
    manifest = {
        "id": identity,
        "base_id": identity,
        "backbone": name,
        "runtime": "torch",
        "dim": backbone.dim,
        "transform": (transform or backbone.transform).to_dict(),
    }
    return TorchEncoder(manifest, model)


def _load_folder(name: str, folder: Path, threads: int) -> "TorchEncoder":
    from worker.encoder.package import open_encoder

    _trained_manifest(name, folder)
    encoder: TorchEncoder = open_encoder(folder, threads)  # type: ignore[assignment]  # its runtime is torch
    return encoder


def _trained_manifest(name: str, folder: Path) -> dict[str, Any]:
    """Return the manifest of a trained encoder's folder.

    Raises:
        EncoderUnavailable: if it is no such folder, or of another backbone.
    """
    from worker.encoder.package import read_manifest

    manifest = read_manifest(folder)
    if manifest["runtime"] != "torch":
        raise EncoderUnavailable(
            f"{folder} holds an encoder that was exported to {manifest['runtime']}. Name the folder that "
            f"`python -m training.export` wrote in {WEIGHTS_SETTING}."
        )
    if manifest.get("backbone") != name:
        raise EncoderUnavailable(
            f"{folder} holds an encoder of {manifest.get('backbone')!r}, not of {name!r}. "
            f"Set LOOKALIKE_ENCODER={manifest.get('backbone')}, or correct {WEIGHTS_SETTING}."
        )
    return manifest


def open_torch_encoder(manifest: dict[str, Any], weights_path: Path, threads: int) -> "TorchEncoder":
    """Open what was saved of a torch encoder: its manifest, and its weights under the network's own names.

    Raises:
        EncoderUnavailable: if the backbone is unknown or the weights don't fit.
    """
    import torch

    from worker.encoder.torch_encoder import TorchEncoder
    from worker.encoder.weights import fill, read_weights

    torch.set_num_threads(threads)
    model = find_backbone(manifest["backbone"]).build_with(Head(**manifest.get("head", {})))
    fill(model, read_weights(weights_path), weights_path, by_order=False)
    return TorchEncoder(manifest, model, dtype=torch.bfloat16 if manifest.get("dtype") == "bfloat16" else torch.float32)


def encoder_id(
    name: str, weights_path: Path | None = None, transform: Transform | None = None, head: Head | None = None
) -> str:
    """Return the id that `load_encoder` would give, without loading anything: "<name>-<10 hex digits>".

    The digits are SHA-256 over the weights file's bytes, the transform's JSON and the head where it is not the usual
    one, so none can change unnoticed. A trained encoder's folder has its id in its manifest.

    Raises:
        EncoderUnavailable: if the weights file is not there.
    """
    backbone = find_backbone(name)
    path = weights_path or backbone.own_weights()
    if path.is_dir():
        return str(_trained_manifest(name, path)["id"])
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    except OSError as error:
        raise EncoderUnavailable(f"The weights file can't be read ({error}). Correct {WEIGHTS_SETTING}.") from error
    digest.update((transform or backbone.transform).to_json().encode())
    if head is not None and head != Head():
        digest.update(json.dumps(head.to_dict(), sort_keys=True).encode())
    return f"{name}-{digest.hexdigest()[:10]}"
