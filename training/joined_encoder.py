"""Several encoders as one, to judge or to teach with; it costs as much as all of them, so it is not served."""

import hashlib
from collections.abc import Sequence

import numpy as np

from training.problem import TrainingProblem
from worker.encoder import Encoder


class JoinedEncoder(Encoder):
    """The embeddings of several encoders side by side; its cosine is the mean of theirs.

    Attributes:
        parts: the encoders.
    """

    def __init__(self, parts: Sequence[Encoder]) -> None:
        """Args:
        parts: two or more, that see photos in the same way.

        Raises:
            TrainingProblem: if their transforms differ.
        """
        first = parts[0].manifest
        if any(part.manifest["transform"] != first["transform"] for part in parts):
            raise TrainingProblem("Encoders can be joined if they have the same transform; these differ in it.")
        ids = "+".join(part.id for part in parts)
        super().__init__(
            {
                "id": f"joined-{hashlib.sha256(ids.encode()).hexdigest()[:10]}",
                "runtime": "+".join(sorted({part.manifest["runtime"] for part in parts})),
                "dim": sum(part.dim for part in parts),
                "transform": first["transform"],
            }
        )
        self.parts = tuple(parts)

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """Run all networks; see `Encoder.embed`."""
        self._check(pixels)
        each = [part.embed(pixels) for part in self.parts]
        return np.concatenate(each, axis=1) / np.float32(len(each) ** 0.5)
