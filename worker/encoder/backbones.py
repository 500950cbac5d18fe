"""The networks that Lookalike knows, each with its weights and the transform that it was measured with."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from worker.encoder.encoder import EncoderUnavailable
from worker.encoder.head import Head, attach
from worker.encoder.own_weights import lite_weights, torchvision_weights
from worker.encoder.transform import Transform

if TYPE_CHECKING:
    import torch


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
        takes_one_size: whether it fails with pictures of another size than its transform's.
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
    takes_one_size: bool = False
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


def find_backbone(name: str) -> Backbone:
    """Return the backbone of a name.

    Raises:
        EncoderUnavailable: if there is none; the message names all.
    """
    try:
        return BACKBONES[name]
    except KeyError:
        raise EncoderUnavailable(f"There is no encoder {name!r}; choose one of {', '.join(BACKBONES)}.") from None


def _build_lite(number: int) -> "torch.nn.Module":
    from timm.models import efficientnet

    model: torch.nn.Module = getattr(efficientnet, f"tf_efficientnet_lite{number}")(num_classes=0)
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
_LITE_LEVELS = (127 / 255,) * 3, (128 / 255,) * 3


def _lite(number: int, resize: int, size: int) -> Backbone:
    """Return an EfficientNet-Lite, whose weights are a package that names parameters otherwise."""
    return Backbone(
        dim=1280,
        transform=Transform(0.125, resize, size, "bicubic", *_LITE_LEVELS),
        build=partial(_build_lite, number),
        own_weights=partial(lite_weights, number),
        stages=(("conv_stem", "bn1"), *((f"blocks.{stage}",) for stage in range(7)), ("conv_head", "bn2")),
        trained_from=4,
        pool="global_pool",
        by_order=True,
        # Mean cosine of int8 with float32 on val, lite0: 0.988 with none, 0.995 with one, 0.998 with two and three.
        exact_convolutions=2,
    )


_RESNET_STAGES = (("conv1", "bn1", "relu", "maxpool"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))
_VIT_BEGIN = ("class_token", "conv_proj", "encoder.pos_embedding")

BACKBONES: dict[str, Backbone] = {
    "tf_efficientnet_lite0": _lite(0, resize=256, size=224),
    "tf_efficientnet_lite2": _lite(2, resize=297, size=260),
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
        takes_one_size=True,
    ),
}
