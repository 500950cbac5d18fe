"""Pictures that people look at: retrieval sheets, and a map of the embedding space."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from training.files import writing_aside
from training.retrieval import Found

TILE, FRAME, GAP = 112, 5, 6
QUERY, HIT, MISS = "#4a5568", "#1f9d55", "#d64545"
SHOWN = 10
MAPPED = 1500
NAMED = 18


def retrieval_sheet(found: Found, chosen: Sequence[int], path: Path) -> None:
    """Draw queries with their ten hits: a row each, hits framed green, misses red.

    Args:
        found: what queries found.
        chosen: which queries, by their place in `found.queries`.
        path: JPEG file to write.
    """
    relevant = found.relevant(found.photos.label)
    side = TILE + 2 * FRAME + GAP
    sheet = Image.new("RGB", ((SHOWN + 1) * side + GAP, len(chosen) * side + GAP), "white")
    for line, query in enumerate(chosen):
        tiles = [(found.queries[query], QUERY)]
        tiles += [
            (row, HIT if is_hit else MISS)
            for row, is_hit in zip(found.neighbours[query, :SHOWN], relevant[query], strict=False)
        ]
        for column, (row, colour) in enumerate(tiles):
            left, top = GAP + column * side + (GAP if column else 0), GAP + line * side
            sheet.paste(_tile(found.photos.paths[row], colour), (left, top))
    with writing_aside(path) as aside:
        sheet.save(aside, "JPEG", quality=85)


def _tile(path: Path, colour: str) -> Image.Image:
    with Image.open(path) as photo:
        small = ImageOps.pad(ImageOps.exif_transpose(photo).convert("RGB"), (TILE, TILE), color="white")
    return ImageOps.expand(small, FRAME, colour)


def draw_map(embeddings: np.ndarray, labels: np.ndarray, path: Path, seed: int = 0) -> None:
    """Draw photos in two dimensions, near where they are near in the embedding space; the commonest classes are named.

    Args:
        embeddings: float32 (n, dim), unit rows; 1,500 of them are drawn.
        labels: text (n,).
        path: PNG file to write.
        seed: the same gives the same map.

    Source: van der Maaten and Hinton, "Visualizing Data using t-SNE", 2008.
    """
    from matplotlib.figure import Figure  # both slow to import, and only needed here
    from sklearn.manifold import TSNE

    rows = np.random.default_rng(seed).permutation(len(embeddings))[:MAPPED]
    places = np.zeros((len(rows), 2), np.float32)
    if len(rows) > 1:  # one alone is near nothing
        perplexity = min(30.0, max(1.0, (len(rows) - 1) / 3))
        places = TSNE(perplexity=perplexity, metric="cosine", init="random", random_state=seed).fit_transform(
            embeddings[rows]
        )
    names, counts = np.unique(labels[rows], return_counts=True)
    commonest = names[np.argsort(-counts, kind="stable")[:NAMED]]
    picture = Figure(figsize=(11, 9), layout="constrained")
    axes = picture.subplots()
    is_other = ~np.isin(labels[rows], commonest)
    axes.scatter(places[is_other, 0], places[is_other, 1], s=6, color="#cbd5e0", label="others")
    for at, name in enumerate(commonest):
        own = places[labels[rows] == name]
        axes.scatter(own[:, 0], own[:, 1], s=9, color=f"C{at % 10}", marker="o" if at < 10 else "^", label=name)
        axes.annotate(name, np.median(own, axis=0), fontsize=8, weight="bold", ha="center")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    axes.set(xticks=[], yticks=[], title=f"{len(rows)} queries, t-SNE of their embeddings")
    with writing_aside(path) as aside:
        picture.savefig(aside, format="png", dpi=100)


def choose_queries(precisions: np.ndarray, count: int, seed: int = 0) -> tuple[list[int], list[int]]:
    """Choose queries for two sheets: some at random, and some of the worst.

    Args:
        precisions: float64 (q,), Precision of each query.
        count: for each sheet.
        seed: the same gives the same ones.
    """
    random = np.random.default_rng(seed)
    any_ones = sorted(random.permutation(len(precisions))[:count].tolist())
    order = random.permutation(len(precisions))
    worst = order[np.argsort(precisions[order], kind="stable")[:count]].tolist()
    return any_ones, worst
