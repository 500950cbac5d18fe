"""A new release beside the active one, by the embeddings that both have of the catalogue: which finds better?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import select

from shared.catalogue import Catalogue
from shared.releases import Release, active_release
from shared.tables import EmbeddingRow, ItemImageRow
from worker.index.vector_index import Vectors
from worker.releases.sample import choose_label

COMPARED_IMAGES = 20_000
FEWEST_IMAGES = 30
PRECISION_HITS, AGREEING_HITS = 5, 10
READ_AT_ONCE = 1000


def compare_with_active(
    catalogue: Catalogue, release: Release, queries: Sequence[str], label: str | None
) -> dict[str, Any] | None:
    """Search the catalogue with some of its own images, by the embeddings of both releases, exactly.

    Args:
        catalogue: has the embeddings of both encoders, and the labels.
        release: the new one.
        queries: SHA-256 of the images to search with; those that either encoder lacks are left out.
        label: attribute that hits shall agree in; None leaves the choice.

    Returns:
        JSON values: the active release, queries, images that were searched, the mean share of the ten best that both
        find (agreement_at_10), and where there is a label Precision@5 of both, and their difference with its 95%
        interval from the standard error over queries. None where there is no other encoder to compare with.
    """
    active = active_release(catalogue)
    if active is None or active.encoder_id == release.encoder_id:
        return None
    hashes = _embedded_by_both(catalogue, active.encoder_id, release.encoder_id)
    places = {sha256: place for place, sha256 in enumerate(hashes)}
    asked = np.array([places[sha256] for sha256 in queries if sha256 in places], np.int64)
    if len(hashes) < FEWEST_IMAGES or not len(asked):
        return None
    found = [_nearest(catalogue, encoder, hashes, asked) for encoder in (release.encoder_id, active.encoder_id)]
    overlap = [
        len({*ours} & {*theirs}) / len(ours) for ours, theirs in zip(*(each.tolist() for each in found), strict=True)
    ]
    told = {
        "with": active.id,
        "queries": len(asked),
        "images": len(hashes),
        "agreement_at_10": round(float(np.mean(overlap)), 4),
    }
    name, labels = choose_label(catalogue, hashes, label)
    return told if name is None else told | {"label": name} | _precision(np.array(labels), asked, *found)


def _precision(labels: np.ndarray, asked: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """Return Precision@5 of both, given places of images (n, 10) that they find for those at `asked`, (n,)."""
    new, old = ((labels[found[:, :PRECISION_HITS]] == labels[asked][:, None]).mean(axis=1) for found in (ours, theirs))
    gain = new - old  # (n,)
    error = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else float("nan")
    interval = None if np.isnan(error) else [round(float(gain.mean() + sign * error), 4) for sign in (-1, 1)]
    return {
        "precision_at_5": round(float(new.mean()), 4),
        "active_precision_at_5": round(float(old.mean()), 4),
        "gain": round(float(gain.mean()), 4),
        "gain_interval_95": interval,
    }


def _embedded_by_both(catalogue: Catalogue, *encoder_ids: str) -> list[str]:
    """Return the lowest hashes of images that all the encoders have embedded, which are as good as random."""
    image = ItemImageRow.sha256
    chosen = select(image).distinct().order_by(image).limit(COMPARED_IMAGES)
    for encoder_id in encoder_ids:
        known = select(EmbeddingRow.sha256).where(EmbeddingRow.encoder_id == encoder_id, EmbeddingRow.sha256 == image)
        chosen = chosen.where(known.exists())
    with catalogue.engine.connect() as connection:
        return list(connection.execute(chosen).scalars())


def _nearest(catalogue: Catalogue, encoder_id: str, hashes: Sequence[str], asked: np.ndarray) -> np.ndarray:
    """Return the places of the ten nearest other images of each, int64 (n, 10), the best first."""
    vectors = _vectors(catalogue, encoder_id, hashes)
    scores = vectors[asked] @ vectors.T  # (n, images)
    scores[np.arange(len(asked)), asked] = -np.inf
    hits = min(AGREEING_HITS, len(hashes) - 1)
    return np.argsort(-scores, axis=1, kind="stable")[:, :hits]


def _vectors(catalogue: Catalogue, encoder_id: str, hashes: Sequence[str]) -> Vectors:
    parts = []
    for start in range(0, len(hashes), READ_AT_ONCE):
        page = hashes[start : start + READ_AT_ONCE]
        known = catalogue.embeddings(encoder_id, page)
        parts.append(np.stack([np.frombuffer(known[sha256], "<f4") for sha256 in page]))
    return np.concatenate(parts).astype(np.float32)
