"""The threshold of similar hits: how near must an embedding be, so that another photo's answer will do?

Trained embeddings crowd together, and each encoder in its own way, so this is measured, as a cache would meet it. It
holds the answers to some photos. Copies of these photos come, altered as people alter them, and each asks twice: a
cache that holds the photo's own answer, and one that doesn't, so that the nearest is another photo's. The true answers
to the copy and to the nearest cached photo are found by exact search in the index, without the photos themselves.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

K = 10
WANTED_OVERLAP = 0.9
# The mean alone would let a crowd of exact copies pay for hits near the threshold, whose answers are half wrong.
MARGIN_WANTED_OVERLAP = 0.8
MARGIN_HITS = 50
MIN_HITS = 20
MIN_INDEX_ROWS = 10 * K
NEVER = 1.0
"""As a threshold: only equal embeddings share a result."""
THRESHOLDS = [level / 1000 for level in range(900, 1000)]
MAX_SIDE = 1024
IMAGES_OF_AN_ITEM = 16


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def _cropped(image: Image.Image) -> Image.Image:
    width, height = image.size
    box = (round(0.04 * width), round(0.02 * height), round(0.98 * width), round(0.96 * height))
    return _jpeg(image.crop(box), 85)


def _resized(image: Image.Image) -> Image.Image:
    size = (max(1, image.width * 2 // 3), max(1, image.height * 2 // 3))
    return _jpeg(image.resize(size, Image.Resampling.LANCZOS), 85)


ALTERATIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG of quality 75": lambda image: _jpeg(image, 75),
    "JPEG of quality 40": lambda image: _jpeg(image, 40),
    "cropped by 6%": _cropped,
    "two thirds of the size": _resized,
    "10% brighter": lambda image: _jpeg(ImageEnhance.Brightness(image).enhance(1.1), 85),
}


def versions(image: Image.Image) -> list[Image.Image]:
    """Return a photo, no larger than 1024 pixels, and its altered copies in the order of ALTERATIONS."""
    photo = image.copy()
    photo.thumbnail((MAX_SIDE, MAX_SIDE))
    return [photo, *(alter(photo) for alter in ALTERATIONS.values())]


def calibrate(index: np.ndarray, items: Sequence[str], photos: np.ndarray, copies: np.ndarray) -> dict[str, Any]:
    """Choose the lowest threshold at which similar hits keep 9 of the true top 10 on average.

    Args:
        index: float32 (n, dim), unit rows: what is searched, without the photos.
        items: n ids; several rows may belong to one item, which counts once.
        photos: float32 (p, dim), unit rows: the photos whose answers are cached.
        copies: float32 (p, c, dim), unit rows: their altered copies.

    Returns:
        JSON values for a manifest: min_cosine in [0.9, 1], where 1 means that no threshold would do;
        wanted_overlap, table, photos, how.
    """
    described = {"wanted_overlap": WANTED_OVERLAP, "photos": len(photos)}
    if len(index) < MIN_INDEX_ROWS or len(photos) < 2:
        how = f"not calibrated: it takes {MIN_INDEX_ROWS} images beside the photos, and there are {len(index)}"
        return {"min_cosine": NEVER, "table": [], "how": how, **described}
    cosines, overlaps = similar_hits(index, items, photos, copies)
    threshold, table = choose_threshold(cosines, overlaps)
    how = (
        f"{len(photos)} held-out photos in {len(ALTERATIONS)} altered copies ({', '.join(ALTERATIONS)}); each copy "
        f"asks a cache with its photo and one without; exact search for {K} of {len(set(items))} items. The lowest "
        f"threshold whose hits keep {WANTED_OVERLAP:.0%} on average, and the {MARGIN_HITS} hits just above it "
        f"{MARGIN_WANTED_OVERLAP:.0%}."
    )
    return {"min_cosine": threshold, "table": table, "how": how, **described}


def similar_hits(
    index: np.ndarray, items: Sequence[str], photos: np.ndarray, copies: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a cache without threshold would answer; arguments as for `calibrate`.

    Returns:
        Two arrays (2 * p * c,): each copy's cosine with its nearest cached photo, and how much of its true top 10
        that photo's answer holds, in [0, 1]. First with its own photo cached, then without.
    """
    count, copies_each, dim = copies.shape
    queries = copies.reshape(count * copies_each, dim)
    own = np.repeat(np.arange(count), copies_each)  # (q,)
    cached_tops = top_items(index, items, photos)
    query_tops = top_items(index, items, queries)
    with_own = queries @ photos.T  # (q, p)
    without_own = with_own.copy()
    without_own[np.arange(len(queries)), own] = -np.inf
    cosines, overlaps = [], []
    for similarity in (with_own, without_own):
        nearest = similarity.argmax(axis=1)  # (q,)
        cosines.append(similarity[np.arange(len(queries)), nearest])
        overlaps.append([len(top & cached_tops[row]) / K for top, row in zip(query_tops, nearest, strict=True)])
    return np.concatenate(cosines), np.concatenate(overlaps)


def top_items(index: np.ndarray, items: Sequence[str], queries: np.ndarray) -> list[set[str]]:
    """Return the 10 nearest items of each query, by exact search; arguments as for `calibrate`."""
    rows = min(len(index), K * IMAGES_OF_AN_ITEM)  # enough for 10 items, however many images these have
    tops = []
    for start in range(0, len(queries), 64):
        scores = queries[start : start + 64] @ index.T  # (64, n)
        nearest = np.argpartition(-scores, rows - 1, axis=1)[:, :rows]
        for row, candidates in zip(scores, nearest, strict=True):
            ordered = candidates[np.argsort(-row[candidates], kind="stable")]
            tops.append(set(_first_items(ordered, items)))
    return tops


def _first_items(rows: Iterable[int], items: Sequence[str]) -> list[str]:
    found: dict[str, None] = {}
    for row in rows:
        found[items[row]] = None
        if len(found) == K:
            break
    return list(found)


def choose_threshold(cosines: np.ndarray, overlaps: np.ndarray) -> tuple[float, list[dict[str, Any]]]:
    """Return the lowest threshold that keeps enough, and what was measured at each.

    Args:
        cosines: (n,), how near each query's best cached photo is.
        overlaps: (n,), how much of the true top 10 its answer holds.

    Returns:
        The threshold, 1 if none will do; and for each threshold its hits (queries at or above it), their mean
        overlap, and that of the 50 hits just above it.
    """
    order = np.argsort(cosines, kind="stable")
    cosines, overlaps = cosines[order], overlaps[order]
    table = []
    chosen = NEVER
    for threshold in reversed(THRESHOLDS):
        hits = overlaps[np.searchsorted(cosines, threshold) :]
        if len(hits) == 0:
            continue
        mean, margin = round(float(hits.mean()), 4), round(float(hits[:MARGIN_HITS].mean()), 4)
        table.append({"cosine": threshold, "hits": len(hits), "mean_overlap": mean, "margin_overlap": margin})
        if len(hits) >= MIN_HITS and mean >= WANTED_OVERLAP and margin >= MARGIN_WANTED_OVERLAP:
            chosen = threshold
    return chosen, table[::-1]
