"""The networks that Lookalike knows, each with its weights and the transform that it was measured with."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.encoder.encoder import EncoderUnavailable
from worker.encoder.head import Head, attach
from worker.encoder.own_weights import WEIGHTS_SETTING, lite0_weights, torchvision_weights
from worker.encoder.transform import Transform

if TYPE_CHECKING:
    import torch

    from worker.encoder.torch_encoder import TorchEncoder


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network without its classifier.

    Attributes:
        dim: length of an embedding without projection.
        transform: what its own weights expect.
        build: makes the network with random weights.
        own_weights: gives the file of its ImageNet weights, fetching it first where that is needed.
        stages: its modules from input to output, in the groups that training freezes and trains.
        trained_from: number of the first stage that training changes unless told otherwise.
        pool: name of its pooling layer; None where there is no feature map to pool.
        classifier: name of its last layer, which does nothing here or projects.
        by_order: whether the file of its own weights names parameters otherwise, in the same order.
        exact_convolutions: how many of the first stay in float32 when it is quantised.
    """

    dim: int
    transform: Transform
    build: "Callable[[], torch.nn.Module]"
    own_weights: Callable[[], Path]
    stages: tuple[tuple[str, ...], ...] = ()
    trained_from: int = 0
    pool: str | None = None
    classifier: str = "classifier"
    by_order: bool = False
    exact_convolutions: int = 0

    def build_with(self, head: Head) -> "torch.nn.Module":
        """Return the network with random weights and a head.

        Raises:
            ValueError: if it can't have that head.
        """
        model = self.build()
        self.attach(model, head)
        return model

    def attach(self, model: "torch.nn.Module", head: Head) -> None:
        """Put a head with random weights onto a network that `build` made.

        Raises:
            ValueError: if it can't have that head.
        """
        attach(model, head, pool=self.pool, classifier=self.classifier, features=self.dim)


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


def find_backbone(name: str) -> Backbone:
    """Return the backbone of a name.

    Raises:
        EncoderUnavailable: if there is none; the message names all.
    """
    try:
        return BACKBONES[name]
    except KeyError:
        raise EncoderUnavailable(f"There is no encoder {name!r}; choose one of {', '.join(BACKBONES)}.") from None


def _build_lite0() -> "torch.nn.Module":
    from timm.models.efficientnet import tf_efficientnet_lite0

    model: torch.nn.Module = tf_efficientnet_lite0(num_classes=0)
    return model


def _build_torchvision(name: str, classifier: str) -> "torch.nn.Module":
    import torch
    import torchvision

    model: torch.nn.Module = getattr(torchvision.models, name)(weights=None)
    setattr(model, classifier, torch.nn.Identity())
    return model


def _imagenet(resize: int, size: int) -> Transform:
    return Transform(0.125, resize, size, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


# TensorFlow's (x - 127) / 128, which these weights were trained with. ImageNet's usual mean and std cost precision.
_LITE0_LEVELS = (127 / 255,) * 3, (128 / 255,) * 3

_RESNET_STAGES = (("conv1", "bn1", "relu", "maxpool"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))
_VIT_BEGIN = ("class_token", "conv_proj", "encoder.pos_embedding")

BACKBONES: dict[str, Backbone] = {
    "tf_efficientnet_lite0": Backbone(
        dim=1280,
        transform=Transform(0.125, 256, 224, "bicubic", *_LITE0_LEVELS),
        build=_build_lite0,
        own_weights=lite0_weights,
        stages=(("conv_stem", "bn1"), *((f"blocks.{stage}",) for stage in range(7)), ("conv_head", "bn2")),
        trained_from=4,
        pool="global_pool",
        by_order=True,
        # Mean cosine of int8 with float32 on val: 0.988 with none, 0.995 with one, 0.998 with two and with three.
        exact_convolutions=2,
    ),
    "resnet50": Backbone(
        dim=2048,
        transform=_imagenet(256, 224),
        build=partial(_build_torchvision, "resnet50", "fc"),
        own_weights=partial(torchvision_weights, "resnet50", "resnet50-0676ba61.pth"),
        stages=_RESNET_STAGES,
        trained_from=4,
        pool="avgpool",
        classifier="fc",
    ),
    "resnet101": Backbone(
        dim=2048,
        transform=_imagenet(256, 224),
        build=partial(_build_torchvision, "resnet101", "fc"),
        own_weights=partial(torchvision_weights, "resnet101", "resnet101-63fe2227.pth"),
        stages=_RESNET_STAGES,
        trained_from=4,
        pool="avgpool",
        classifier="fc",
    ),
    "efficientnet_b4": Backbone(
        dim=1792,
        transform=_imagenet(384, 380),
        build=partial(_build_torchvision, "efficientnet_b4", "classifier"),
        own_weights=partial(torchvision_weights, "efficientnet_b4", "efficientnet_b4_rwightman-23ab8bcd.pth"),
        stages=tuple((f"features.{stage}",) for stage in range(9)),
        trained_from=6,
        pool="avgpool",
    ),
    "vit_b_16": Backbone(
        dim=768,
        transform=_imagenet(256, 224),
        build=partial(_build_torchvision, "vit_b_16", "heads"),
        own_weights=partial(torchvision_weights, "vit_b_16", "vit_b_16-c867db91.pth"),
        stages=(
            _VIT_BEGIN,
            *((f"encoder.layers.encoder_layer_{layer}",) for layer in range(12)),
            ("encoder.ln",),
        ),
        trained_from=9,
        classifier="heads",
    ),
}
