"""Small photos, no two alike, and catalogues of them: what is broken here is not the encoder."""

import csv
import io
import random
import zipfile

from PIL import Image

BLOCKS, PIXELS = 8, 64


def picture(name: str) -> Image.Image:
    """Return coloured blocks that follow from a name."""
    blocks = random.Random(name).randbytes(BLOCKS * BLOCKS * 3)
    return Image.frombytes("RGB", (BLOCKS, BLOCKS), blocks).resize((PIXELS, PIXELS), Image.Resampling.NEAREST)


def photo(name: str, kind: str = "JPEG") -> bytes:
    """Return a picture as a file of some format."""
    file = io.BytesIO()
    picture(name).save(file, kind)
    return file.getvalue()


def item_id(prefix: str, number: int) -> str:
    """Return the id of a row's item."""
    return f"{prefix}-{number:05d}"


def catalogue(prefix: str, rows: int, edition: str = "") -> bytes:
    """Return a ZIP of a table and its photos.

    Args:
        prefix: row n is item `prefix-n` with the photo of that name.
        rows: how many.
        edition: added to the names of the photos: the same items with other photos.
    """
    table, packed = io.StringIO(), io.BytesIO()
    writer = csv.writer(table)
    writer.writerow(["id", "title", "image"])
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(rows):
            name = item_id(prefix, number)
            writer.writerow([name, f"Item {number}", f"{name}.jpg"])
            archive.writestr(f"{name}.jpg", photo(name + edition))
        archive.writestr("products.csv", table.getvalue())
    return packed.getvalue()
