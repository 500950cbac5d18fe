"""What an encoder folder tells beside its weights: where each class lies, and what a score means.

    classes.json            photos of each class, how near they are to its centre
    centroids.safetensors   "centroids" float32 (classes, dim), unit rows in the order of classes.json

Classes are described by their photos in train; what a score means is measured on val, which nothing was learned from.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from training.retrieval import Found

HITS = 10
BINS = 10
NEWTON_STEPS = 50


def class_statistics(embeddings: np.ndarray, labels: np.ndarray) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Describe each class by its photos.

    Args:
        embeddings: float32 (n, dim), unit rows.
        labels: text (n,).

    Returns:
        For each class its name, photos, and the mean and the 5% quantile of their cosine with the class's centroid; and
        the centroids, float32 (classes, dim), unit rows: means of the photos' embeddings, brought to length 1.
    """
    statistics: list[dict[str, Any]] = []
    centroids = []
    for name in np.unique(labels):
        own = embeddings[labels == name]
        mean = own.mean(axis=0)
        centroids.append(mean / max(float(np.linalg.norm(mean)), 1e-12))
        cosines = own @ centroids[-1]
        statistics.append(
            {
                "name": str(name),
                "photos": len(own),
                "mean_cosine": round(float(cosines.mean()), 4),
                "low_cosine": round(float(np.quantile(cosines, 0.05)), 4),
            }
        )
    return statistics, np.stack(centroids).astype(np.float32)


def calibrate_scores(found: Found) -> dict[str, Any]:
    """Learn what a score means: the probability that a hit has its query's label is 1 / (1 + exp(-(a * score + b))).

    Args:
        found: of queries that the encoder did not learn from; their first 10 hits count.

    Returns:
        JSON values: a, b, hits, and a table of scores with the share that was relevant, and what the formula says.

    Source: Platt, "Probabilistic Outputs for Support Vector Machines", 1999, with his targets that keep a and b finite.
    """
    scores = found.scores[:, :HITS].ravel().astype(np.float64)
    relevant = found.relevant(found.photos.label)[:, :HITS].ravel()
    a, b = fit_logistic(scores, relevant)
    edges = np.quantile(scores, np.linspace(0, 1, BINS + 1))
    bins = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, BINS - 1)
    told = 1 / (1 + np.exp(-(a * scores + b)))
    table = [
        {
            "mean_score": round(float(scores[bins == at].mean()), 4),
            "relevant": round(float(relevant[bins == at].mean()), 4),
            "told": round(float(told[bins == at].mean()), 4),
        }
        for at in range(BINS)
        if (bins == at).any()
    ]
    return {"a": round(a, 4), "b": round(b, 4), "hits": len(scores), "table": table}


def fit_logistic(scores: np.ndarray, relevant: np.ndarray) -> tuple[float, float]:
    """Return a and b of the logistic curve that fits best, by Newton's method.

    Args:
        scores: float64 (n,).
        relevant: bool (n,).
    """
    yes, no = int(relevant.sum()), int((~relevant).sum())
    targets = np.where(relevant, (yes + 1) / (yes + 2), 1 / (no + 2))
    inputs = np.stack([scores, np.ones_like(scores)], axis=1)  # (n, 2)
    weights = np.zeros(2)
    for _ in range(NEWTON_STEPS):
        told = 1 / (1 + np.exp(-inputs @ weights))
        gradient = inputs.T @ (told - targets)
        hessian = (inputs * (told * (1 - told))[:, None]).T @ inputs + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        weights -= step
        if np.abs(step).max() < 1e-9:
            break
    return float(weights[0]), float(weights[1])


def write_knowledge(folder: Path, statistics: list[dict[str, Any]], centroids: np.ndarray) -> None:
    """Write classes.json and centroids.safetensors."""
    from safetensors.numpy import save

    (folder / "classes.json").write_text(json.dumps(statistics, indent=1) + "\n", encoding="utf-8")
    (folder / "centroids.safetensors").write_bytes(save({"centroids": centroids}))
