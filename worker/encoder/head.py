"""The end of an encoder's network: how its last feature map is pooled, and what becomes an embedding of that.

Features -> projection -> whitening -> the first so many numbers; each step is optional, and L2 normalisation follows.
"""

from collections import OrderedDict
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import torch

Pooling = Literal["average", "gem"]

PROJECTION, WHITENING, PREFIX = "projection", "whitening", "prefix"
"""Names of the last layers where there are several; a projection alone has the classifier's own name."""


@dataclass(frozen=True, slots=True)
class Head:
    """What follows a backbone's last layer; the default is what its ImageNet weights were trained with.

    Attributes:
        pooling: average, or gem, the generalised mean with a learned power (`worker/encoder/pooling.py`).
        dim: a linear layer projects to so many numbers; None means that the pooled features are the embedding.
        whitened: embeddings are whitened to so many numbers (`worker/encoder/whitening.py`); None for not at all.
        prefix: only so many numbers are kept, the first ones; None means all.
        flips: a photo and its mirror image go through the network, and their sum is the embedding: twice the work.
    """

    pooling: Pooling = "average"
    dim: int | None = None
    whitened: int | None = None
    prefix: int | None = None
    flips: bool = False

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise ValueError(f"pooling must be one of {get_args(Pooling)}, but is {self.pooling!r}")
        for length in (self.dim, self.whitened, self.prefix):
            if length is not None and length < 1:
                raise ValueError(f"an embedding has at least 1 number, not {length}")

    def length(self, features: int) -> int:
        """Return the length of an embedding of so many features.

        Raises:
            ValueError: if a step is to give more numbers than it gets.
        """
        projected = self.dim or features
        for wanted in (self.whitened, self.prefix):
            if wanted is not None and wanted > projected:
                raise ValueError(f"an embedding of {projected} numbers can't be made {wanted} long by leaving some out")
            projected = wanted or projected
        return projected

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as JSON values, for a manifest; pooling and dim, and what else is not the default."""
        usual = {field.name: field.default for field in fields(self)}
        return {
            name: value
            for name, value in asdict(self).items()
            if name in ("pooling", "dim") or value != usual[name]  # manifests and ids from before stay what they are
        }


def attach(model: "torch.nn.Module", head: Head, *, pool: str | None, classifier: str, features: int) -> None:
    """Put a head onto a network without classifier.

    Args:
        model: changed in place.
        head: what is wanted.
        pool: name of the network's pooling layer; None where it has none.
        classifier: name of its last layer.
        features: what the network gives for an image.

    Raises:
        ValueError: if the network has nothing that could be pooled otherwise, or the head leaves out more than it gets.
    """
    head.length(features)
    if head.pooling == "gem":
        from worker.encoder.pooling import GeneralisedMean

        if pool is None:
            raise ValueError("this network pools no feature map; choose pooling average, which leaves it as it is")
        setattr(model, pool, GeneralisedMean())
    layers = _last_layers(head, features)
    if list(layers) == [PROJECTION]:
        setattr(model, classifier, layers[PROJECTION])
    elif layers:
        import torch

        setattr(model, classifier, torch.nn.Sequential(layers))


def _last_layers(head: Head, features: int) -> "OrderedDict[str, torch.nn.Module]":
    import torch

    from worker.encoder.whitening import Prefix, Whitening

    layers: OrderedDict[str, torch.nn.Module] = OrderedDict()
    if head.dim is not None:
        layers[PROJECTION] = torch.nn.Linear(features, head.dim)
    if head.whitened is not None:
        layers[WHITENING] = Whitening(head.dim or features, head.whitened)
    if head.prefix is not None:
        layers[PREFIX] = Prefix(head.prefix)
    return layers
