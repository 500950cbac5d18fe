"""The photos and the catalogue: read, or drawn where the data sets are absent."""

import csv
import hashlib
import io
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

PHOTOS = 600
ITEMS = 8024
PHOTO_SIZE = (400, 533)  # of the street photos
ITEM_SIZE = (224, 224)  # of the catalogue's
COLUMNS = ("id", "title", "image", "article_type")
DRAWN_PRODUCTS = 300
RECOMPRESSED_QUALITY = 60
SEED = 7


@dataclass(frozen=True)
class Product:
    """A row of the catalogue.

    Attributes:
        image: path below the import root.
        split: what the data set uses it for; drawn products are all "train".
    """

    id: str
    title: str
    image: str
    article_type: str
    split: str

    def cells(self) -> tuple[str, ...]:
        """Return the cells of COLUMNS."""
        return self.id, self.title, self.image, self.article_type


@dataclass(frozen=True)
class Material:
    """What every system works with.

    Attributes:
        photos: files to search with.
        copies: the same photos, compressed again: other bytes, nearly the same picture.
        root: import root, with the products' images below it.
        products: all rows of the catalogue.
        sources: where both come from, for the report.
    """

    photos: list[Path]
    copies: list[Path]
    root: Path
    products: list[Product]
    sources: str

    def images(self, products: Sequence[Product]) -> list[Path]:
        """Return the image files of products."""
        return [self.root / product.image for product in products]


def gather(datasets: Path, scratch: Path, *, photos: int = PHOTOS, items: int = ITEMS) -> Material:
    """Bring photos and catalogue together below `scratch`, drawing what `datasets` lacks.

    Args:
        datasets: folder with street/photos.csv and fashion/products.csv, each perhaps absent.
        scratch: gets root/, photos/ and copies/.
        photos: most photos.
        items: most products.
    """
    rng = random.Random(SEED)  # noqa: S311
    street, fashion, root = datasets / "street", datasets / "fashion", scratch / "root"
    if (street / "photos.csv").is_file():
        with (street / "photos.csv").open(newline="", encoding="utf-8") as file:
            chosen = [street / row["image"] for row in csv.DictReader(file)]
        photo_source = "photos of street/"
    else:
        chosen = draw_photos(scratch / "photos", photos)
        photo_source = "drawn photos (street/ is absent)"
    rng.shuffle(chosen)
    chosen = chosen[:photos]
    if (fashion / "products.csv").is_file():
        products, item_source = copy_catalogue(fashion, root, items), "products of fashion/"
    else:
        products, item_source = draw_catalogue(root, items), "drawn products (fashion/ is absent)"
    # Releases are built with the images of the lowest hashes: these come first, so that a release which is built from
    # the first part of the catalogue is the same when it is built from all of it.
    products.sort(key=lambda product: hashlib.sha256((root / product.image).read_bytes()).digest())
    sources = f"{len(chosen)} {photo_source}; {len(products):,} {item_source}"
    return Material(chosen, recompress(chosen, scratch / "copies"), root, products, sources)


def write_table(products: Sequence[Product], table: Path) -> None:
    """Write products as a CSV file that Lookalike imports."""
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *(product.cells() for product in products)])


def copy_catalogue(fashion: Path, root: Path, items: int) -> list[Product]:
    """Copy products into the import root, which may not lead out of itself."""
    with (fashion / "products.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    products = []
    for row in rows[:items]:
        (root / row["image"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(fashion / row["image"], root / row["image"])
        products.append(Product(row["id"], row["title"], row["image"], row["article_type"], row["split"]))
    return products


def recompress(photos: Sequence[Path], folder: Path) -> list[Path]:
    """Save photos again at a lower quality, as when somebody takes a picture of a messenger to search with."""
    folder.mkdir(parents=True, exist_ok=True)
    copies = []
    for number, photo in enumerate(photos):
        copies.append(folder / f"{number:04}.jpg")
        with Image.open(photo) as image:
            ImageOps.exif_transpose(image).convert("RGB").save(copies[-1], quality=RECOMPRESSED_QUALITY)
    return copies


def unknown_photo(seed: str) -> bytes:
    """Return a drawn photo, of the size of the others, that no cache knows yet: each seed gives another one."""
    from training.sample_catalogue import make_items
    from training.sample_drawing import customer_photo

    look = make_items(DRAWN_PRODUCTS, SEED)[random.Random(seed).randrange(DRAWN_PRODUCTS)].look  # noqa: S311
    square = customer_photo(look, seed, max(PHOTO_SIZE))
    data = io.BytesIO()
    ImageOps.fit(square, PHOTO_SIZE).save(data, "JPEG", quality=85)
    return data.getvalue()


def draw_photos(folder: Path, photos: int) -> list[Path]:
    """Draw photos as customers take them, as large as the street photos."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04}.jpg" for number in range(photos)]
    for path in paths:
        path.write_bytes(unknown_photo(path.stem))
    return paths


def draw_catalogue(root: Path, items: int) -> list[Product]:
    """Draw some products, and vary their colours and framing until there are enough."""
    from training.sample_catalogue import make_items
    from training.sample_drawing import Pose, photograph

    (root / "images").mkdir(parents=True, exist_ok=True)
    products = []
    drawn = [
        (item, photograph(item.look, Pose(0.0, 0.93), (250, 250, 250), ITEM_SIZE[0]))
        for item in make_items(min(DRAWN_PRODUCTS, items), SEED)
    ]
    for number in range(items):
        item, picture = drawn[number % len(drawn)]
        turn, margin = number // len(drawn), number // len(drawn) % 20
        hue, *rest = picture.convert("HSV").split()
        turned = Image.merge("HSV", [hue.point([(value + 9 * turn) % 256 for value in range(256)]), *rest])
        framed = ImageOps.fit(ImageOps.expand(turned.convert("RGB"), margin, "white"), ITEM_SIZE)
        product = Product(f"{item.id}-{turn}", item.title, f"images/{number}.jpg", item.look.category, "train")
        framed.save(root / product.image, quality=90)
        products.append(product)
    return products
