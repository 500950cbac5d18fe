"""Which transform suits an encoder, measured on val against train; test plays no part.

    python -m benchmarks.encoder_transform --data ../shared/datasets/fashion --street ../shared/datasets/street

writes docs/results/encoder-transform.md. `--street` adds photos that people took of their own clothes.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from benchmarks.encoder_precision import (
    HEADINGS,
    Photo,
    embed,
    figures,
    markdown_table,
    nearest,
    progress_bars,
    read_photos,
)
from benchmarks.report import heading, write
from shared.schemas import Crop
from worker.encoder import BACKBONES, Transform, load_encoder

STREET_TYPES = {
    "dress": {"Dresses", "Tunics", "Kurtas"},
    "hat": {"Caps", "Hat"},
    "longsleeve": {"Tshirts", "Sweatshirts", "Sweaters", "Tops"},
    "outwear": {"Jackets", "Rain Jacket", "Blazers", "Sweaters", "Sweatshirts", "Nehru Jackets", "Waistcoat"},
    "pants": {"Jeans", "Trousers", "Track Pants", "Leggings", "Capris", "Jeggings", "Lounge Pants"},
    "shirt": {"Shirts"},
    "shoes": {"Casual Shoes", "Sports Shoes", "Formal Shoes", "Heels", "Flats", "Sandals", "Flip Flops"},
    "shorts": {"Shorts"},
    "skirt": {"Skirts"},
    "t-shirt": {"Tshirts", "Tops"},
}
"""Which article types of the catalogue are a fair answer to a street photo of a category."""


def report_choice(args: argparse.Namespace, progress: Progress) -> None:
    """Compare transforms; test plays no part."""
    photos = read_photos(args.data / "products.csv")
    found = [photo for photo in photos if photo.labels["split"] == "train"][:: args.every]
    asked = [photo for photo in photos if photo.labels["split"] == "val"][:: args.every]
    boxed = [replace(photo, crop=tight_box(photo.decode())) for photo in asked]
    street = read_photos(args.street / "photos.csv")[:: args.every] if args.street else []
    whole_rows, part_rows = [], []
    for name, (transform, trims) in variants(BACKBONES[args.encoder].transform).items():
        encoder = load_encoder(args.encoder, args.weights, args.threads, transform)
        index = embed(encoder, found, f"{name}: train", progress)
        queries = embed(encoder, asked, f"{name}: val", progress)
        whole_rows.append([name, *(f"{value:.4f}" for value in figures(queries, asked, index, found))])
        for trim in trims:
            trimming = load_encoder(args.encoder, args.weights, args.threads, replace(transform, trim=trim))
            box = figures(embed(trimming, boxed, f"{name}, trim {trim}: box", progress), boxed, index, found)[1]
            row = [name, f"{trim:g}", f"{box:.4f}"]
            if street:
                neighbours = nearest(embed(trimming, street, f"{name}, trim {trim}: street", progress), index, 10)
                row.append(f"{street_agreement(street, neighbours, found):.4f}")
            part_rows.append(row)
    lines = [
        heading("Choice of the encoder's transform", "benchmarks.encoder_transform"),
        f"Index: {len(found):,} products of train; queries: {len(asked):,} of val, whole and square.",
        "",
        *markdown_table((args.encoder, *HEADINGS), whole_rows),
        "",
        "Photos that aren't square. Drawn box: the same products cut to the garment's outline, as a customer draws a "
        f"box; Precision@5. Street: {len(street):,} photos that people took; share of the first 10 of a fitting type.",
        "",
        *markdown_table(("transform", "trim", "drawn box", *(["street"] if street else [])), part_rows),
    ]
    write("encoder-transform", "\n".join(lines) + "\n")
    Console().print("\n".join(lines), markup=False)


def variants(shipped: Transform) -> dict[str, tuple[Transform, Sequence[float]]]:
    """Return the transforms to compare, each with the trims to try on photos that aren't square."""
    trims = (0.0, 0.125, 0.25, 1.0)
    imagenet: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    return {
        "resize 224": (replace(shipped, resize=224, size=224), trims),
        "resize 256, centre 224": (replace(shipped, resize=256, size=224), trims),
        "resize 256": (replace(shipped, resize=256, size=256), ()),
        "resize 224, ImageNet's mean and std": (replace(shipped, resize=224, size=224, **imagenet), ()),
    }


def tight_box(image: Image.Image) -> Crop:
    """Return the box around all that isn't white."""
    left, top, right, bottom = image.convert("L").point([255] * 240 + [0] * 16).getbbox() or (0, 0, *image.size)
    return Crop(
        x=left / image.width,
        y=top / image.height,
        width=(right - left) / image.width,
        height=(bottom - top) / image.height,
    )


def street_agreement(street: Sequence[Photo], neighbours: np.ndarray, found: Sequence[Photo]) -> float:
    """Return the share of neighbours (n, k) whose type fits the street photo's category."""
    fits = [
        found[row].labels["article_type"] in STREET_TYPES[photo.labels["category"]]
        for photo, rows in zip(street, neighbours.tolist(), strict=True)
        for row in rows
    ]
    return float(np.mean(fits))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoder_transform", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of products.csv and its images")
    parser.add_argument("--street", type=Path, help="folder of photos.csv and its images")
    parser.add_argument("--every", type=int, default=1, help="use every n-th photo")
    parser.add_argument("--encoder", choices=sorted(BACKBONES), default="tf_efficientnet_lite0")
    parser.add_argument("--weights", type=Path, help="weights file; left out: the encoder's own")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    with progress_bars() as progress:
        report_choice(args, progress)


if __name__ == "__main__":
    main()
