"""Encoders as they serve: opened by `worker.encoder`, fed by `worker.decode`, so that a figure is of what is served."""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.errors import LookalikeError
from training.joined_encoder import JoinedEncoder
from training.labelled_photos import LabelledPhotos
from training.pixel_cache import MAX_BYTES, MAX_PIXELS
from training.problem import TrainingProblem
from worker.decode import decode_pixels
from worker.encoder import BACKBONES, Encoder, choose_runtime, load_encoder, open_encoder, read_manifest
from worker.encoder.encoder import BATCH_IMAGES
from worker.encoder.package import MANIFEST
from worker.encoder.runtimes import Runtime
from worker.encoder.torch_encoder import TorchEncoder

log = logging.getLogger(__name__)

CALIBRATION_PHOTOS = 300
GATE_PHOTOS = 300
TIMED_PHOTOS = 100

Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Cost:
    """What an encoder costs on this machine.

    Attributes:
        milliseconds: median wall-clock time of one photo alone, from bytes to embedding.
        photos_per_second: in batches of 8, decoding included.
        size_bytes: of its files.
    """

    milliseconds: float
    photos_per_second: float
    size_bytes: int


def open_judged(name: str, threads: int) -> Encoder:
    """Open an encoder to judge: a folder of any runtime, or the name of a backbone with its ImageNet weights.

    Args:
        name: several of them joined by + are one encoder, an ensemble.
        threads: CPU threads of one forward pass.

    Raises:
        EncoderUnavailable: if it can't be opened; the message tells the remedy.
        TrainingProblem: if there is no such folder or backbone.
    """
    folder = Path(name)
    if (folder / MANIFEST).exists():
        if read_manifest(folder)["runtime"] == "torch":
            return load_encoder(read_manifest(folder)["backbone"], folder, threads)
        return open_encoder(folder, threads)
    if name in BACKBONES:
        return load_encoder(name, threads=threads)
    if "+" in name:
        return JoinedEncoder([open_judged(part, threads) for part in name.split("+")])
    raise TrainingProblem(
        f"{name} is neither the folder of an encoder nor a backbone ({', '.join(BACKBONES)}). "
        "`python -m training.export RUN` makes a folder of a run."
    )


@contextmanager
def as_served(
    name: str, runtime: Runtime, photos: LabelledPhotos, calibration: np.ndarray, held_out: np.ndarray, threads: int
) -> Iterator[tuple[Encoder, int]]:
    """Open an encoder in the runtime that it would serve in, made as `worker.build_release` makes it.

    The block gets the encoder and the bytes of its files.

    Args:
        name: as for `open_judged`.
        runtime: torch opens it as it is, a release's encoder in the runtime that it was made for.
        photos: to quantise with, and to compare with torch.
        calibration: int64 (n,), rows of photos to quantise with; the first 300 are used.
        held_out: int64 (m,), rows of other photos for the accuracy gate; the first 300 are used.
        threads: CPU threads of one forward pass.

    Raises:
        EncoderUnavailable: if it can't be had in that runtime, or does not pass the gate; the message tells why.
    """
    encoder = open_judged(name, threads)
    if runtime in ("torch", encoder.manifest["runtime"]):
        yield encoder, size_of(encoder, Path(name))
        return
    if isinstance(encoder, JoinedEncoder):
        raise TrainingProblem("An ensemble is judged in torch only, since it can't be served.")
    if not isinstance(encoder, TorchEncoder):
        raise TrainingProblem(
            f"{name} is made for {encoder.manifest['runtime']} already, and can't be judged in {runtime}. Name the "
            "folder that it was made of."
        )
    samples = [
        readable_pixels(encoder, photos, rows)[0]
        for rows in (spread(calibration, CALIBRATION_PHOTOS), spread(held_out, GATE_PHOTOS))
    ]
    with tempfile.TemporaryDirectory() as scratch:
        choice = choose_runtime(
            encoder,
            Path(scratch),
            calibration=samples[0],
            held_out=samples[1],
            wanted=runtime,
            threads=threads,
        )
        opened = open_encoder(choice.folder, threads)
        yield opened, size_of(opened, choice.folder)


def spread(rows: np.ndarray, count: int) -> np.ndarray:
    """Return at most so many of the rows, evenly spread over them."""
    chosen: np.ndarray = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]
    return chosen


def read_pixels(paths: Sequence[Path], encoder: Encoder) -> np.ndarray:
    """Return what the encoder sees of some photos, uint8 (n, size, size, 3).

    Raises:
        InvalidImage: if a photo can't be read.
    """
    size = encoder.transform.size
    pixels = np.empty((len(paths), size, size, 3), np.uint8)
    for row, path in zip(pixels, paths, strict=True):
        row[:] = decode_pixels(path.read_bytes(), encoder.transform, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)
    return pixels


def readable_pixels(encoder: Encoder, photos: LabelledPhotos, rows: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Return what the encoder sees of those photos that can be read, and their rows; the log names the others."""
    size = encoder.transform.size
    pixels, used = [np.empty((0, size, size, 3), np.uint8)], []
    for row in rows.tolist():
        try:
            pixels.append(read_pixels([photos.paths[row]], encoder))
            used.append(row)
        except (OSError, LookalikeError) as error:
            log.warning("%s is left out: %s", photos.paths[row], error)
    return np.concatenate(pixels), used


def embed_photos(
    encoder: Encoder, photos: LabelledPhotos, rows: np.ndarray, told: Told = lambda *_: None
) -> tuple[np.ndarray, np.ndarray]:
    """Embed photos as a worker does; those that can't be read are named in the log and left out.

    Returns:
        float32 (len(photos), dim), 0 in rows that were left out or not asked for; and the rows that were embedded.
    """
    embeddings = np.zeros((len(photos), encoder.dim), np.float32)
    embedded: list[int] = []
    for start in range(0, len(rows), BATCH_IMAGES):
        pixels, used = readable_pixels(encoder, photos, rows[start : start + BATCH_IMAGES])
        embeddings[used] = encoder.embed(pixels)
        embedded += used
        told(start + BATCH_IMAGES, len(rows))
    return embeddings, np.array(embedded, np.int64)


def readable_rows(photos: LabelledPhotos, split: str, readable: np.ndarray) -> np.ndarray:
    """Return the rows of a split that could be read, int64 (m,).

    Raises:
        TrainingProblem: if none could.
    """
    rows = photos.rows_of(split)
    found = np.intersect1d(rows, readable)
    if len(found) == 0:
        raise TrainingProblem(
            f"None of the {len(rows)} photos of {split} can be read, such as {photos.paths[rows[0]]}. Check the column "
            "of images."
        )
    return found


def cost_of(encoder: Encoder, paths: Sequence[Path], size_bytes: int) -> Cost:
    """Measure what an encoder costs here, with the first 100 photos.

    Args:
        encoder: warm or not.
        paths: photos that can be read.
        size_bytes: of its files.
    """
    timed = paths[:TIMED_PHOTOS]
    encoder.embed(read_pixels(timed[:1], encoder))
    seconds = []
    for path in timed:
        begun = time.perf_counter()
        encoder.embed(read_pixels([path], encoder))
        seconds.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    for start in range(0, len(timed), BATCH_IMAGES):
        encoder.embed(read_pixels(timed[start : start + BATCH_IMAGES], encoder))
    return Cost(1000 * float(np.median(seconds)), len(timed) / (time.perf_counter() - begun), size_bytes)


def size_of(encoder: Encoder, folder: Path) -> int:
    """Return the bytes of an encoder's weights: as tensors in torch, of the model's files in other runtimes."""
    if isinstance(encoder, JoinedEncoder):
        folders = str(folder).split("+")
        return sum(size_of(part, Path(of)) for part, of in zip(encoder.parts, folders, strict=True))
    if isinstance(encoder, TorchEncoder):
        return sum(tensor.nbytes for tensor in encoder.network.model.state_dict().values())
    names = [name for name in encoder.manifest["files"] if name.startswith(("weights.", "model."))]
    return sum((folder / name).stat().st_size for name in names)
