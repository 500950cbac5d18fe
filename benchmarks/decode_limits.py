"""How long the largest photos that are accepted take to decode: the worst that one upload can do to a search worker.

    python -m benchmarks.decode_limits

writes docs/results/decode-limits.md. Each file has as many bytes as are
accepted, or nearly so, and as many pixels, where the bytes leave room for them.
"""

import io
import statistics
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from benchmarks.encoder_precision import markdown_table
from benchmarks.report import heading, write
from shared.image_header import JPEG_MAX_SCANS
from shared.image_parts import JPEG_SCAN, jpeg_segments
from shared.settings import Settings
from worker.decode import decode_pixels
from worker.encoder import BACKBONES

REPETITIONS = 3
STRONGEST = 255  # noise
RETRIES = 4  # with weaker noise, where a small picture told too little
SMALL = 1000  # side of the picture that tells how large a large one becomes
SEED = 5


def picture(width: int, height: int, amplitude: int) -> Image.Image:
    """Return grey with noise, the same each time; noise is what codecs find hardest."""
    noise = np.random.default_rng(SEED).integers(0, amplitude, (height, width, 3), dtype=np.uint8, endpoint=True)
    return Image.fromarray(noise)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    """Return a picture as a file."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def many_scans(image: Image.Image) -> bytes:
    """Return a JPEG that goes over its pixels as often as is accepted: its last scan again and again."""
    data = saved(image, "JPEG", progressive=True, quality=75)
    starts = [start for marker, start, _ in jpeg_segments(data) if marker == JPEG_SCAN]
    last = data[starts[-1] : -2]
    return data[:-2] + last * (JPEG_MAX_SCANS - len(starts)) + data[-2:]


KINDS: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG": lambda image: saved(image, "JPEG", quality=90),
    "JPEG, progressive": lambda image: saved(image, "JPEG", quality=90, progressive=True),
    f"JPEG, {JPEG_MAX_SCANS} scans": many_scans,
    "PNG": lambda image: saved(image, "PNG", compress_level=1),
    "PNG with transparency": lambda image: saved(image.convert("RGBA"), "PNG", compress_level=1),
    "WebP": lambda image: saved(image, "WEBP", quality=80, method=0),
    "WebP, lossless": lambda image: saved(image, "WEBP", lossless=True, quality=0, method=0),
    "GIF": lambda image: saved(image.convert("P"), "GIF"),
    "AVIF": lambda image: saved(image, "AVIF", quality=60, speed=10),
    "BMP": lambda image: saved(image.convert("L"), "BMP"),
}


def largest(settings: Settings) -> Iterator[tuple[str, tuple[int, int], bytes]]:
    """Yield for each kind of file one of as many pixels as are accepted: its name, its size and its bytes.

    WebP has at most 16,383 pixels a side. A kind that is too large without noise is made with fewer pixels.
    """
    for name, save in KINDS.items():
        for share in (1, 2, 4):
            width = int((settings.image_max_pixels / share * 2) ** 0.5)
            height = settings.image_max_pixels // share // width
            found = _largest_of(save, width, height, settings.upload_max_bytes)
            if found is not None:
                yield name, (width, height), found
                break


def _largest_of(save: Callable[[Image.Image], bytes], width: int, height: int, max_bytes: int) -> bytes | None:
    """Return a file with the strongest noise that fits, first judged by a small picture; None if none fits."""

    def fits(noise: int) -> bool:
        return len(save(picture(SMALL, SMALL, noise))) * width * height / SMALL**2 <= max_bytes

    strongest = bisect_left(range(1, STRONGEST + 1), True, key=lambda noise: not fits(noise))
    for noise in range(strongest, max(0, strongest - RETRIES) - 1, -1):
        data = save(picture(width, height, noise))
        if len(data) <= max_bytes:
            return data
    return None


def main() -> None:
    """Measure, and write the page."""
    settings = Settings(_env_file=None)
    transform = BACKBONES["tf_efficientnet_lite0"].transform
    max_bytes, max_pixels = settings.upload_max_bytes, settings.image_max_pixels
    rows = []
    for name, (width, height), data in track(largest(settings), "Decoding", total=len(KINDS)):
        took = []
        for _ in range(REPETITIONS):
            start = time.process_time()
            decode_pixels(data, transform, max_bytes=max_bytes, max_pixels=max_pixels)
            took.append(time.process_time() - start)
        rows.append(
            [
                name,
                f"{width:,} x {height:,}",
                f"{len(data) / 1e6:.1f} MB",
                f"{statistics.median(took):.2f}",
                f"{max(took):.2f}",
            ]
        )
    headings = ("file", "pixels", "size", "median, s", "longest, s")
    page = "\n".join(
        (
            heading("The largest photos that are accepted", "benchmarks.decode_limits"),
            "Seconds of CPU time from a file to the pixels that an encoder sees, in one thread, as a search worker",
            f"decodes; noise, as strong as fits into {settings.upload_max_bytes / 2**20:g} MiB. A search has "
            f"{settings.search_deadline_seconds} s in all.",
            "",
            *markdown_table(headings, rows),
            "",
        )
    )
    Console().print(write("decode-limits", page))


if __name__ == "__main__":
    main()
