"""All photos, decoded once: what the transform sees before it cuts out the centre, in one memory-mapped file.

    <folder>/<16 hex digits>.npy    uint8 (n, resize, resize, 3), written aside and renamed
    <folder>/<16 hex digits>.json   which photos could not be read, and why

The name is a digest of the photos' bytes and of the transform's parameters. The centre is what `Transform.pixels`
gives, byte for byte; augmentation starts from the whole square. Workers scale faster (`worker/encoder/scaling.py`), and
so does what judges an encoder (`training/served.py`).
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from shared.errors import LookalikeError
from training.files import writing_aside
from training.problem import TrainingProblem
from worker.decode import decode_image
from worker.encoder import Transform

log = logging.getLogger(__name__)

MAX_BYTES, MAX_PIXELS = 2**26, 10**8
"""Of one photo: catalogue photos are trusted more than a customer's, but a bomb is still a bomb."""
READ_AT_ONCE = 64
THREADS = 2
SHOWN = 5

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Squares:
    """Photos as squares of side `transform.resize`.

    Attributes:
        pixels: uint8 (n, resize, resize, 3), memory-mapped; black where a photo could not be read.
        unreadable: why a photo could not be read, by row.
        fingerprint: of the photos' bytes, in 64 hex digits.
        transform: the evaluation transform.
    """

    pixels: np.ndarray
    unreadable: dict[int, str]
    fingerprint: str
    transform: Transform

    def centres(self, rows: np.ndarray) -> np.ndarray:
        """Return what the transform makes of some photos, uint8 (m, size, size, 3)."""
        size = self.transform.size
        edge = (self.transform.resize - size) // 2
        return self.pixels[rows, edge : edge + size, edge : edge + size]


def decode_photos(
    paths: Sequence[Path], transform: Transform, folder: Path, progress: Progress = lambda *_: None
) -> Squares:
    """Open the cache of these photos, or make it; unreadable photos are left black and named in the log.

    Raises:
        TrainingProblem: if most photos can't be read.
        OSError: if the disk is full; what is there of the cache is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    photos_digest = fingerprint(paths)
    whole = replace(transform, size=transform.resize)
    key = hashlib.sha256((photos_digest + whole.to_json()).encode()).hexdigest()[:16]
    stored, notes = folder / f"{key}.npy", folder / f"{key}.json"
    if not (stored.exists() and notes.exists()):
        _write(paths, whole, stored, notes, progress)
    unreadable = {int(row): why for row, why in json.loads(notes.read_text(encoding="utf-8")).items()}
    for row, why in list(unreadable.items())[:SHOWN]:
        log.warning("%s is left out: %s", paths[row], why)
    if len(unreadable) > SHOWN:
        log.warning("%d more photos are left out; config.json of the run names them all", len(unreadable) - SHOWN)
    if len(unreadable) > len(paths) / 2:
        raise TrainingProblem(
            f"{len(unreadable)} of {len(paths)} photos can't be read, such as {paths[next(iter(unreadable))]}: "
            f"{next(iter(unreadable.values()))}. Check the column of images."
        )
    return Squares(np.load(stored, mmap_mode="r"), unreadable, photos_digest, transform)


def fingerprint(paths: Sequence[Path]) -> str:
    """Return SHA-256 over the bytes of photos in their order; a missing one counts as no bytes."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError:
            digest.update(b"missing")
    return digest.hexdigest()


def _write(paths: Sequence[Path], transform: Transform, stored: Path, notes: Path, progress: Progress) -> None:
    side = transform.resize
    unreadable: dict[int, str] = {}
    with writing_aside(stored) as aside:
        # A pattern of the whole file would be no promise of its space: a full disk kills who writes to a mapping.
        with aside.open("wb") as file:
            np.lib.format.write_array_header_2_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": (len(paths), side, side, 3)}
            )
            for row, square in enumerate(_squares(paths, transform, unreadable)):
                file.write(square.tobytes())
                progress(row + 1, len(paths))
        with writing_aside(notes) as told:
            told.write_text(json.dumps(unreadable), encoding="utf-8")


def _squares(paths: Sequence[Path], transform: Transform, unreadable: dict[int, str]) -> Iterator[np.ndarray]:
    def square(row: int) -> np.ndarray:
        try:
            data = paths[row].read_bytes()
            return transform.pixels(decode_image(data, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS))
        except (OSError, LookalikeError) as error:
            unreadable[row] = str(error)
            return np.zeros((transform.resize, transform.resize, 3), np.uint8)

    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(paths), READ_AT_ONCE):
            yield from pool.map(square, range(start, min(start + READ_AT_ONCE, len(paths))))
