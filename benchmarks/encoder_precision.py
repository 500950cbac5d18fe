"""How well an encoder's embeddings find products of the same kind, on labelled catalogue photos.

    python -m benchmarks.encoder_precision --data ../shared/datasets/fashion

embeds every product, searches train + val with each test product, and writes docs/results/encoder.md.
Exact search in numpy, so nothing but the encoder is measured. Choices are made on val: benchmarks/encoder_transform.py.
"""

import argparse
import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.report import heading, write
from shared.schemas import Crop
from worker.decode import decode_image
from worker.encoder import BACKBONES, Encoder, load_encoder

BATCH = 32

CELLS = (("article_type", 1), ("article_type", 5), ("article_type", 10), ("sub_category", 5), ("base_colour", 5))
HEADINGS = ("Precision@1", "Precision@5", "Precision@10", "sub_category@5", "base_colour@5")


@dataclass(frozen=True)
class Photo:
    """A labelled photo, and the part of it to look at."""

    path: Path
    labels: dict[str, str]
    crop: Crop | None = None

    def decode(self) -> Image.Image:
        """Return the photo upright, as the worker sees it."""
        return decode_image(self.path.read_bytes(), max_bytes=2**25, max_pixels=10**8, crop=self.crop)


def read_photos(table: Path) -> list[Photo]:
    """Return the photos of a CSV file, whose column `image` names files beside it."""
    with table.open(newline="", encoding="utf-8") as file:
        return [Photo(table.parent / row["image"], row) for row in csv.DictReader(file)]


def embed(encoder: Encoder, photos: Sequence[Photo], title: str, progress: Progress) -> np.ndarray:
    """Return float32 (n, dim)."""
    task = progress.add_task(title, total=len(photos))
    parts = [np.empty((0, encoder.dim), dtype=np.float32)]
    for start in range(0, len(photos), BATCH):
        batch = photos[start : start + BATCH]
        parts.append(encoder.encode([photo.decode() for photo in batch]))
        progress.advance(task, len(batch))
    return np.concatenate(parts)


def agreement(
    queries: np.ndarray, query_labels: Sequence[str], index: np.ndarray, index_labels: Sequence[str], k: int
) -> float:
    """Return the mean over queries of (neighbours with the query's label among the first k) / k."""
    relevant = np.asarray(index_labels)[nearest(queries, index, k)] == np.asarray(query_labels)[:, None]  # (n, k)
    return float(relevant.mean())


def nearest(queries: np.ndarray, index: np.ndarray, k: int) -> np.ndarray:
    """Return rows of the k most similar embeddings, int64 (n, k), best first; ties by row."""
    return np.argsort(-(queries @ index.T), axis=1, kind="stable")[:, :k]


def figures(queries: np.ndarray, asked: Sequence[Photo], index: np.ndarray, found: Sequence[Photo]) -> list[float]:
    """Return one figure for each of CELLS."""
    return [
        agreement(queries, [p.labels[field] for p in asked], index, [p.labels[field] for p in found], k)
        for field, k in CELLS
    ]


def report_test(args: argparse.Namespace, progress: Progress) -> None:
    """Measure the encoder as it ships, once, on test."""
    photos = read_photos(args.data / "products.csv")
    encoder = load_encoder(args.encoder, args.weights, args.threads)
    started = time.perf_counter()
    embeddings = embed(encoder, photos, "test against train + val", progress)
    rate = len(photos) / (time.perf_counter() - started)
    is_test = np.array([photo.labels["split"] == "test" for photo in photos])
    asked = [photo for photo in photos if photo.labels["split"] == "test"]
    found = [photo for photo in photos if photo.labels["split"] != "test"]
    values = figures(embeddings[is_test], asked, embeddings[~is_test], found)
    lines = [
        heading("Precision of the encoder", "benchmarks.encoder_precision"),
        f"Index: {len(found):,} products (train + val); queries: {len(asked):,} (test); relevant: same article type.",
        "Precision@k is the mean over queries of (relevant among the first k) / k; the others count alike.",
        "",
        *markdown_table(("encoder", *HEADINGS), [[encoder.id, *(f"{value:.4f}" for value in values)]]),
        "",
        f"Transform: `{encoder.manifest['transform']}`.",
        f"Read, decoded and embedded {rate:.0f} photos a second.",
    ]
    write("encoder", "\n".join(lines) + "\n")
    Console().print("\n".join(lines), markup=False)


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    return [f"| {' | '.join(cells)} |" for cells in (headings, ["---"] * len(headings), *rows)]


def progress_bars() -> Progress:
    """Return progress bars on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoder_precision", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of products.csv and its images")
    parser.add_argument("--encoder", choices=sorted(BACKBONES), default="tf_efficientnet_lite0")
    parser.add_argument("--weights", type=Path, help="weights file; left out: the encoder's own")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    with progress_bars() as progress:
        report_test(args, progress)


if __name__ == "__main__":
    main()
