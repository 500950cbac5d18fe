"""Photos on their way into the catalogue: what tests of it need, and a program that measures its memory.

python -m tests.photo_intake FOLDER    prints by how many MiB the process grew at its peak
"""

import io
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shared.catalogue import Catalogue
from shared.database import connect_database
from shared.errors import ImageMissing
from shared.migrations import upgrade
from shared.settings import Settings
from shared.store import Store
from worker.encoder import Encoder, Transform
from worker.imports.intake import Intake
from worker.imports.rows import CatalogueRow

DIM = 4
TRANSFORM = Transform(0.125, resize=8, size=8, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1))


class CornerEncoder(Encoder):
    """A small encoder: the colour of a photo's corner, and 1, brought to norm 1. Keeps the size of each batch."""

    def __init__(self, transform: Transform = TRANSFORM) -> None:
        super().__init__({"id": "corner", "dim": DIM, "transform": transform.to_dict()})
        self.transform = transform
        self.batches: list[int] = []

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        self.batches.append(len(pixels))
        corners = pixels[:, 0, 0].astype(np.float32)  # (n, 3)
        values = np.pad(corners, ((0, 0), (0, 1)), constant_values=1)
        embeddings: np.ndarray = values / np.linalg.norm(values, axis=1, keepdims=True)
        return embeddings


class Files:
    """Photos by name, which counts how often each is read. An ImageSource."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files
        self.read_names: list[str] = []

    def read(self, reference: str) -> bytes:
        self.read_names.append(reference)
        if reference not in self._files:
            raise ImageMissing(f"There is no {reference}.")
        return self._files[reference]


def photo(width: int, height: int, number: int = 0, kind: str = "JPEG") -> bytes:
    """Return a photo of one colour; each number gives another file."""
    file = io.BytesIO()
    profile = number.to_bytes(4, "big")  # which no decoder looks at, and which is kept
    Image.new("RGB", (width, height), (number % 200, 90, 40)).save(file, kind, icc_profile=profile)
    return file.getvalue()


def with_gamma(png: bytes, number: int) -> bytes:
    """Return the same PNG as another file."""
    chunk = b"gAMA" + number.to_bytes(4, "big")
    header = 33  # bytes of signature and IHDR
    return png[:header] + b"\0\0\0\4" + chunk + zlib.crc32(chunk).to_bytes(4, "big") + png[header:]


def row(item_id: str, *images: str) -> CatalogueRow:
    return CatalogueRow(1, item_id, "", images, {})


def new_intake(folder: Path, encoder: Any, *, keep_image_metadata: bool = False, **options: Any) -> Intake:
    """Return an intake with an empty catalogue and store in a folder."""
    url = f"sqlite:///{folder}/lookalike.sqlite3"
    settings = Settings(
        _env_file=None, DATABASE_URL=url, store_url=str(folder / "store"), keep_image_metadata=keep_image_metadata
    )
    engine = connect_database(url)
    upgrade(engine)
    return Intake(settings, Catalogue(engine), Store(settings.store_url), encoder.id, lambda: encoder, **options)


def _mebibytes(name: str) -> float:
    """Return VmRSS, the memory that this process has now, or VmHWM, the most that it ever had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def main(folder: Path) -> None:
    """Take in a row with many large photos, and many rows with phone photos."""
    # Of a JPEG, no more is decoded than the network needs.
    large, phone = photo(8000, 6000, kind="PNG"), photo(4000, 3000, kind="PNG")
    files = {f"large {n}": with_gamma(large, n) for n in range(8)}
    files |= {f"phone {n}": with_gamma(phone, n) for n in range(24)}
    rows = [row("large", *(name for name in files if name.startswith("large")))]
    rows += [row(f"phone{n}", f"phone {n}") for n in range(24)]
    intake = new_intake(folder, CornerEncoder())
    before = _mebibytes("VmRSS")
    prepared = intake.prepare(rows, Files(files))
    assert (len(prepared.items), len(prepared.vectors)) == (25, 32)
    print(round(_mebibytes("VmHWM") - before))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
