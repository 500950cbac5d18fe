"""Real embeddings of 2048 numbers: what the default encoder sees of each photo, whole and cropped.

The mission's encoder gives 2048 numbers. Its weights may not be here, and untrained ones have no structure. So each
photo is embedded twice by the default encoder (1280 numbers each): whole, and the middle 70 % of width and height. Both
vectors one behind the other, 2560 numbers, are rotated to the 2048 directions in which they extend most, and these by
chance: networks spread what they see over all numbers, and codes of 8 bits a number would suffer from one large number.
"""

import csv
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from training.sample_catalogue import generate_catalogue
from worker.decode import decode_image
from worker.encoder import Encoder, load_encoder
from worker.index.vector_index import Vectors

ENCODER = "tf_efficientnet_lite0"
DIM = 2048
MARGIN = 0.15  # of each side, that the second view lacks
BATCH = 32
SAMPLE_ITEMS = 2000  # where the fashion set is absent


@dataclass(frozen=True)
class Embeddings:
    """Embedded photos.

    Attributes:
        catalogue: float32 (n, 2048), unit rows: what an index is grown from.
        queries: float32 (q, 2048), unit rows: photos that are in no index.
        source: which photos, in words.
        energy: share of the vectors' squared length that the rotation to 2048 directions kept.
    """

    catalogue: Vectors
    queries: Vectors
    source: str
    energy: float


def read_embeddings(datasets: Path, cache: Path, console: Console) -> Embeddings:
    """Embed the fashion set (queries: its test split), or generated photos where it is absent; kept in `cache`.

    Args:
        datasets: the folder that has `fashion/products.csv`.
        cache: a folder for what was embedded; made where there is none.
        console: for progress.
    """
    photos, are_queries, source = _photos(datasets, cache)
    name = hashlib.sha256("\n".join([ENCODER, source, *(photo.name for photo in photos)]).encode()).hexdigest()[:16]
    path = cache / f"views-{name}.npy"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        views = _embed(load_encoder(ENCODER, threads=os.cpu_count() or 1), photos, console)
        with path.with_suffix(".part").open("wb") as file:
            np.save(file, views)
        path.with_suffix(".part").replace(path)
    rotated, energy = _rotate(np.load(path))
    return Embeddings(rotated[~are_queries], rotated[are_queries], source, energy)


def _photos(datasets: Path, cache: Path) -> tuple[list[Path], np.ndarray, str]:
    """Return image files, bool (n,): which are queries, and where they are from."""
    table = datasets / "fashion" / "products.csv"
    if not table.is_file():
        table = cache / "sample" / "products.csv"
        generate_catalogue(table.parent, items=SAMPLE_ITEMS)
    with table.open(newline="", encoding="utf-8") as file:
        products = list(csv.DictReader(file))
    photos = [table.parent / product["image"].split("|")[0] for product in products]
    if "split" in products[0]:
        return photos, np.array([product["split"] == "test" for product in products]), "fashion photos"
    return photos, np.arange(len(photos)) % 5 == 0, "generated photos"


def _embed(encoder: Encoder, photos: list[Path], console: Console) -> Vectors:
    """Return float32 (n, 2560): the embeddings of both views."""
    views = np.empty((len(photos), 2 * encoder.dim), np.float32)
    for start in track(range(0, len(photos), BATCH), "Embedding photos", console=console):
        whole = [decode(photo) for photo in photos[start : start + BATCH]]
        some = slice(start, start + len(whole))
        views[some, : encoder.dim] = encoder.encode(whole)
        views[some, encoder.dim :] = encoder.encode([_middle(image) for image in whole])
    return views


def decode(photo: Path) -> Image.Image:
    """Return a photo as the worker sees it."""
    return decode_image(photo.read_bytes(), max_bytes=2**25, max_pixels=10**8)


def _middle(image: Image.Image) -> Image.Image:
    x, y = round(image.width * MARGIN), round(image.height * MARGIN)
    return image.crop((x, y, image.width - x, image.height - y))


def _rotate(views: Vectors) -> tuple[Vectors, float]:
    """Return float32 (n, 2048), unit rows, and the share of squared length that was kept.

    The directions are those of the second moments, not of the covariances: without centring, cosines stay as they are.
    """
    moments = views.T.astype(np.float64) @ views.astype(np.float64)  # (2560, 2560)
    directions = np.linalg.eigh(moments)[1][:, ::-1][:, :DIM]  # (2560, 2048)
    directions = directions @ np.linalg.qr(np.random.default_rng(0).standard_normal((DIM, DIM)))[0]
    rotated = views @ directions.astype(np.float32)
    lengths = np.linalg.norm(rotated, axis=1, keepdims=True)
    return rotated / lengths, float((lengths**2).sum() / (views**2).sum())
