"""Write the sample catalogue: drawn products as CSV and JPEG, and one photo as a customer would take it.

    python -m training.sample_catalogue --out DIR [--items 360] [--seed 7]

    DIR/products.csv    id,title,image,category,colour,pattern,brand,price,gender
    DIR/images/*.jpg    320 x 320; products with several images name them joined by "|"
    DIR/photo.jpg       640 x 640; photo.txt holds the id of the product in it
    DIR/sample.json     what this was made from and the hash of each file: tells whether DIR is complete

The same arguments with the same versions of this module and of Pillow give the same bytes.
"""

import argparse
import csv
import hashlib
import json
import math
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL
from PIL import Image
from rich.console import Console
from rich.progress import track

from training.sample_drawing import COLOURS, PATTERNS, SHAPES, Look, Pose, customer_photo, photograph

VERSION = 1  # raise it when a drawing changes, so that folders made before are made again
MANIFEST = "sample.json"
COLUMNS = ("id", "title", "image", "category", "colour", "pattern", "brand", "price", "gender")
BRANDS = ("Almarra", "Brisko", "Tavelle", "Oxenby", "Luminka", "Perrado", "Quillby", "Marlowen", "Zephrine", "Wrenfold")
PALE = ((233, 226, 214), (221, 230, 236), (236, 222, 224), (223, 233, 221), (230, 225, 238))
USUAL_PRICES = {"jacket": 90, "boot": 95, "sneaker": 75, "watch": 120, "handbag": 70, "backpack": 60, "dress": 55}
IMAGE_PIXELS, PHOTO_PIXELS = 320, 640


@dataclass(frozen=True)
class SampleItem:
    """One product: a row of the CSV and how it looks."""

    id: str
    title: str
    images: tuple[str, ...]
    brand: str
    price: str
    gender: str
    look: Look

    def row(self) -> tuple[str, ...]:
        """Return the cells of COLUMNS."""
        look, image = self.look, "|".join(self.images)
        return self.id, self.title, image, look.category, look.colour, look.pattern, self.brand, self.price, self.gender


def make_items(items: int, seed: int) -> list[SampleItem]:
    """Choose the products: shapes in turn, no colour and pattern twice in a shape until all have been.

    Raises:
        ValueError: if `items` is below 1.
    """
    if items < 1:
        raise ValueError(f"items must be at least 1, not {items}")
    rng = random.Random(f"{VERSION}/{seed}")  # noqa: S311
    combinations = [(colour, pattern) for colour in COLOURS for pattern in PATTERNS]
    # An exponential race draws without replacement by weight: two products in five are plain, as in a shop.
    decks = {c: sorted(combinations, key=lambda pair: rng.expovariate(4 if pair[1] == "plain" else 1)) for c in SHAPES}
    several = set(rng.sample(range(items), math.ceil(items / 10)))
    made = []
    for index in range(items):
        category = tuple(SHAPES)[index % len(SHAPES)]
        colour, pattern = decks[category][index // len(SHAPES) % len(combinations)]
        name, brand = f"sample-{index + 1:04}", rng.choice(BRANDS)
        images = [f"images/{name}.jpg"]
        images += [f"images/{name}-{n}.jpg" for n in range(2, rng.choice((2, 3)) + 1)] if index in several else []
        made.append(
            SampleItem(
                id=name,
                title=f"{brand} {colour} {pattern} {category}".title(),
                images=tuple(images),
                brand=brand,
                price=f"{round(USUAL_PRICES.get(category, 30) * rng.uniform(0.6, 1.6)) - 0.05:.2f}",
                gender="women" if category in ("dress", "skirt") else rng.choice(("women", "men", "unisex")),
                look=Look(category, colour, pattern, f"{VERSION}/{seed}/{name}"),
            )
        )
    return made


def _views(item: SampleItem) -> Iterator[tuple[str, Image.Image]]:
    """Yield path and picture: the front on near-white, then on a pale ground turned and smaller, then closer."""
    rng = random.Random(f"{item.look.seed}/views")  # noqa: S311
    bright, side = rng.randint(249, 253), rng.choice((-1, 1))
    views = (
        (Pose(rng.uniform(-3, 3), rng.uniform(0.9, 0.96)), (bright, bright, bright)),
        (Pose(side * rng.uniform(7, 13), rng.uniform(0.76, 0.84)), rng.choice(PALE)),
        (Pose(-side * rng.uniform(7, 13), 1.15), rng.choice(PALE)),
    )
    for path, (pose, ground) in zip(item.images, views, strict=False):
        yield path, photograph(item.look, pose, ground, IMAGE_PIXELS)


def _files(folder: Path) -> Iterator[str]:
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return (path.relative_to(folder).as_posix() for path in found)


def _hash(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return {"files": {}}
    return manifest if isinstance(manifest, dict) and isinstance(manifest.get("files"), dict) else {"files": {}}


def _recipe(items: int, seed: int) -> dict[str, int | str]:
    return {"version": VERSION, "pillow": PIL.__version__, "items": items, "seed": seed}


def is_complete(out: Path, items: int = 360, seed: int = 7) -> bool:
    """Whether `out` holds, unchanged, every file that `generate_catalogue` would write with these arguments."""
    manifest = _manifest(out)
    if manifest != _recipe(items, seed) | {"files": manifest["files"]}:
        return False
    return all(_hash(out / name) == digest for name, digest in manifest["files"].items())


def generate_catalogue(out: Path, items: int = 360, seed: int = 7) -> None:
    """Write the sample catalogue into folder `out`, which appears (or is replaced) at once when all is written.

    Does nothing when `out` is complete. Shows a progress bar on standard error where that is a terminal.

    Args:
        out: folder to make; one that an earlier call made is replaced.
        items: number of products, at least 1. Shapes take turns.
        seed: decides everything else.

    Raises:
        ValueError: if `items` is below 1.
        FileExistsError: if `out` holds files that were not made here; nothing is touched then.
    """
    out = out.resolve()
    if is_complete(out, items, seed):
        return
    products = make_items(items, seed)
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is not a folder")
    ours = _manifest(out)["files"].keys()
    for name in _files(out):
        if not ours or name not in {*ours, MANIFEST}:
            raise FileExistsError(f"{out} holds {name}, which is not the sample catalogue's: name another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as aside:
        fresh = Path(aside, "fresh")
        _write(fresh, products, f"{VERSION}/{seed}/photo")
        manifest = _recipe(items, seed) | {"files": {name: _hash(fresh / name) for name in sorted(_files(fresh))}}
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        if out.exists():
            out.rename(Path(aside, "replaced"))
        fresh.rename(out)


def _write(folder: Path, products: list[SampleItem], photo_seed: str) -> None:
    (folder / "images").mkdir(parents=True)
    console = Console(stderr=True)
    for item in track(products, "Drawing products", console=console, disable=not console.is_terminal, transient=True):
        for path, image in _views(item):
            image.save(folder / path, quality=90)
    with (folder / "products.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *(item.row() for item in products)])
    patterned = [item for item in products if item.look.pattern != "plain"]
    subject = random.Random(photo_seed).choice(patterned or products)  # noqa: S311
    customer_photo(subject.look, photo_seed, PHOTO_PIXELS).save(folder / "photo.jpg", quality=90)
    (folder / "photo.txt").write_text(subject.id + "\n")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.sample_catalogue", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--items", type=int, default=360, help="number of products (default: 360)")
    parser.add_argument("--seed", type=int, default=7, help="another seed gives another catalogue (default: 7)")
    arguments = parser.parse_args()
    was_complete = is_complete(arguments.out, arguments.items, arguments.seed)
    try:
        generate_catalogue(arguments.out, arguments.items, arguments.seed)
    except (FileExistsError, ValueError) as error:
        parser.error(str(error))
    news = "is complete already, nothing to do" if was_complete else f"now holds {arguments.items} products"
    print(f"{arguments.out} {news}; photo.jpg shows {(arguments.out / 'photo.txt').read_text().strip()}")


if __name__ == "__main__":
    main()
