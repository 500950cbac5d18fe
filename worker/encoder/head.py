"""The end of an encoder's network: how its last feature map is pooled, and to how many numbers it is projected."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import torch

Pooling = Literal["average", "gem"]


@dataclass(frozen=True, slots=True)
class Head:
    """What follows a backbone's last layer; the default is what its ImageNet weights were trained with.

    Attributes:
        pooling: average, or gem, the generalised mean with a learned power (`worker/encoder/pooling.py`).
        dim: a linear layer projects to so many numbers; None means that the pooled features are the embedding.
    """

    pooling: Pooling = "average"
    dim: int | None = None

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise ValueError(f"pooling must be one of {get_args(Pooling)}, but is {self.pooling!r}")
        if self.dim is not None and self.dim < 1:
            raise ValueError(f"an embedding has at least 1 number, not {self.dim}")

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as JSON values, for a manifest."""
        return asdict(self)


def attach(model: "torch.nn.Module", head: Head, *, pool: str | None, classifier: str, features: int) -> None:
    """Put a head onto a network without classifier.

    Args:
        model: changed in place.
        head: what is wanted.
        pool: name of the network's pooling layer; None where it has none.
        classifier: name of its last layer.
        features: what the network gives for an image.

    Raises:
        ValueError: if the network has nothing that could be pooled otherwise.
    """
    if head.pooling == "gem":
        from worker.encoder.pooling import GeneralisedMean

        if pool is None:
            raise ValueError("this network pools no feature map; choose pooling average, which leaves it as it is")
        setattr(model, pool, GeneralisedMean())
    if head.dim is not None:
        import torch

        setattr(model, classifier, torch.nn.Linear(features, head.dim))
