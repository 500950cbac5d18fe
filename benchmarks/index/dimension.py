"""Of how many dimensions vectors are locally: what decides how hard they are to index."""

import faiss
import numpy as np

from worker.index.vector_index import Vectors

NEIGHBOURS = 20
SAMPLE = 2000


def intrinsic_dimension(vectors: Vectors, sample: Vectors | None = None) -> float:
    """Estimate the intrinsic dimension by maximum likelihood.

    Source: Levina and Bickel, "Maximum likelihood estimation of intrinsic dimension" (2004), with the mean taken over
    the inverses, as MacKay and Ghahramani corrected it (2005).

    Args:
        vectors: float32 (n, dim), unit rows, n > 20.
        sample: rows of them to estimate at; None takes up to 2,000 at random.

    Returns:
        (k - 1) / mean over points and over j < k of log(r_k / r_j), r_j being the Euclidean distance to the j-th of
        k = 20 neighbours. Copies of a point are not among its neighbours.
    """
    if sample is None:
        chosen = np.random.default_rng(0).choice(len(vectors), min(SAMPLE, len(vectors)), replace=False)
        sample = vectors[chosen]
    scores = faiss.knn(sample, vectors, min(len(vectors), 3 * NEIGHBOURS), metric=faiss.METRIC_INNER_PRODUCT)[0]
    distances = np.sqrt(np.maximum(2 - 2 * scores.astype(np.float64), 0))
    logs = []
    for radii in distances:
        others = radii[radii > 1e-3][:NEIGHBOURS]
        if len(others) == NEIGHBOURS:
            logs.append(np.log(others[-1] / others[:-1]).mean())
    return float(1 / np.mean(logs))
