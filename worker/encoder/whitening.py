"""Last layers that make embeddings shorter or more even, without learning anything from labels."""

import numpy as np
import torch


class Whitening(torch.nn.Module):
    """Turns features to their principal axes, the widest first, and scales each axis to the same variance.

    What most photos have in common then counts no more than what tells them apart. Source: Jegou and Chum, "Negative
    evidences and co-occurences in image retrieval: the benefit of PCA and whitening", 2012.
    """

    def __init__(self, features: int, dim: int) -> None:
        """Args:
        features: numbers that it gets.
        dim: numbers that it gives, at most so many.
        """
        super().__init__()
        self.turn = torch.nn.Linear(features, dim)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Turn (n, features) into (n, dim); only the direction of features counts."""
        turned: torch.Tensor = self.turn(torch.nn.functional.normalize(features))
        return turned


class Prefix(torch.nn.Module):
    """Keeps the first numbers of an embedding, which training has to have made the important ones.

    Source: Kusupati et al., "Matryoshka Representation Learning", 2022.
    """

    def __init__(self, dim: int) -> None:
        """Args:
        dim: how many.
        """
        super().__init__()
        self.dim = dim

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Turn (n, m) into (n, dim)."""
        return embeddings[:, : self.dim]


def whitening_of(embeddings: np.ndarray, dim: int, shrinkage: float = 0.05) -> dict[str, torch.Tensor]:
    """Return the state of the `Whitening` of some embeddings.

    Args:
        embeddings: float32 (n, features), rows of L2 norm 1, such as will be served.
        dim: axes to keep, the widest ones; at most `features`.
        shrinkage: this share of the mean variance is added to that of each axis, else narrow ones, which are noise,
            would be stretched to the same width.

    Raises:
        ValueError: if there are fewer embeddings than axes to keep.
    """
    if len(embeddings) <= dim:
        raise ValueError(f"whitening to {dim} numbers needs more than {dim} photos, and there are {len(embeddings)}")
    mean = embeddings.mean(axis=0, dtype=np.float64)
    variances, axes = np.linalg.eigh(np.cov(embeddings.astype(np.float64), rowvar=False))  # ascending
    variances, axes = variances[::-1][:dim], axes[:, ::-1][:, :dim]
    turn = (axes / np.sqrt(variances + shrinkage * variances.mean())).T  # (dim, features)
    return {
        "turn.weight": torch.from_numpy(turn.astype(np.float32)),
        "turn.bias": torch.from_numpy((-turn @ mean).astype(np.float32)),
    }
