"""The raw engine: decode, the release's runtime and the release's index in a plain loop, without any server.

python -m benchmarks.serving.raw_engine < plan.json
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.serving.bundle import Bundle, PlainIndex, decode_as_served
from benchmarks.serving.statistics import latencies, median_of, summary
from worker.encoder import Encoder
from worker.encoder.package import open_encoder

BATCH = 8
PAUSE_SECONDS = 0.01  # as long as a lone client's search spends outside the engine
TRIAL_SECONDS = 1.5


@dataclass(frozen=True)
class RawPlan:
    """What to measure.

    Attributes:
        bundle: file of the Bundle.
        photos: files to search with; none: only the rate of `images` is measured.
        images: catalogue images to embed in batches.
        seconds: length of one repetition.
        repetitions: how many.
    """

    bundle: str
    photos: list[str]
    images: list[str]
    seconds: float
    repetitions: int


class RawEngine:
    """One photo after the other."""

    def __init__(self, bundle: Bundle) -> None:
        self._encoder = open_encoder(Path(bundle.encoder), bundle.threads)
        self._index = PlainIndex(bundle)
        self.steps_s: dict[str, float] = {}

    @property
    def encoder(self) -> Encoder:
        """What makes the embeddings."""
        return self._encoder

    def _pixels(self, photo: bytes) -> np.ndarray:
        return decode_as_served(photo, self._encoder.transform)

    def search(self, photo: bytes) -> list[dict[str, Any]]:
        """Return the hits of a photo."""
        marks = [time.perf_counter()]
        pixels = self._pixels(photo)
        marks.append(time.perf_counter())
        embedding = self._encoder.embed(pixels[None])
        marks.append(time.perf_counter())
        hits = self._index.search(embedding)[0]
        marks.append(time.perf_counter())
        for name, start, stop in zip(("decode", "embed", "search"), marks, marks[1:], strict=False):
            self.steps_s[name] = self.steps_s.get(name, 0.0) + stop - start
        return hits

    def search_for(self, photos: Sequence[bytes], seconds: float, pause: float = 0.0) -> dict[str, Any]:
        """Search with one photo after the other for some seconds; return rate, latencies and means of the steps.

        Args:
            photos: files, whole.
            seconds: how long.
            pause: seconds to sleep before each search, which its latency doesn't hold.
        """
        self.steps_s.clear()
        took: list[float] = []
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            if pause:
                time.sleep(pause)
            begun = time.perf_counter()
            self.search(photos[len(took) % len(photos)])
            took.append((time.perf_counter() - begun) * 1000)
        rate = len(took) / (time.perf_counter() - start)
        steps = {name: total * 1000 / len(took) for name, total in self.steps_s.items()}
        return {"rate": rate, "searches": len(took), **latencies(took), "step_ms": steps}

    def fastest_index_threads(self, photos: Sequence[bytes], threads: int) -> int:
        """Set the number of FAISS's threads that the whole loop is fastest with, and return it."""
        rates = {}
        for wanted in {1, threads}:
            faiss.omp_set_num_threads(wanted)
            self.search_for(photos, TRIAL_SECONDS / 3)
            rates[wanted] = self.search_for(photos, TRIAL_SECONDS)["rate"]
        best = max(rates, key=lambda wanted: rates[wanted])
        faiss.omp_set_num_threads(best)
        return best

    def embed_images(self, images: Sequence[Path]) -> float:
        """Read, decode and embed files in batches, as for an import; return how many a second."""
        start = time.perf_counter()
        for first in range(0, len(images), BATCH):
            batch = np.stack([self._pixels(image.read_bytes()) for image in images[first : first + BATCH]])
            self._encoder.embed(batch)
        return len(images) / (time.perf_counter() - start)

    def forward_ms(self, photo: bytes, seconds: float) -> dict[str, float]:
        """Return latencies of a forward pass of one photo."""
        pixels = self._pixels(photo)[None]
        return latencies([took * 1000 for took in _repeat(lambda: self._encoder.embed(pixels), seconds)])

    def forward_rate(self, photos: Sequence[bytes], seconds: float) -> float:
        """Return how many images a second go through the network alone, in batches of 8."""
        pixels = np.stack([self._pixels(photo) for photo in photos[:BATCH]])
        took = _repeat(lambda: self._encoder.embed(pixels), seconds)
        return len(pixels) * len(took) / sum(took)


def _repeat(work: Callable[[], Any], seconds: float) -> list[float]:
    """Return the seconds that each call took, after two calls that don't count."""
    work(), work()
    start, took = time.perf_counter(), []
    while (begun := time.perf_counter()) - start < seconds:
        work()
        took.append(time.perf_counter() - begun)
    return took


def measure(plan: RawPlan) -> dict[str, Any]:
    """Return all figures of the raw engine."""
    bundle = Bundle.load(Path(plan.bundle))
    engine = RawEngine(bundle)
    images = [Path(image) for image in plan.images]
    if not plan.photos:
        return {"bulk_rate": statistics.median(engine.embed_images(images) for _ in range(plan.repetitions))}
    photos = [Path(photo).read_bytes() for photo in plan.photos]
    index_threads = engine.fastest_index_threads(photos, bundle.threads)
    short = plan.seconds / 2
    answers = {
        name: [hit["item_id"] for hit in engine.search(photo)] for name, photo in zip(plan.photos, photos, strict=True)
    }
    return {
        "encoder_id": engine.encoder.id,
        "runtime": engine.encoder.manifest["runtime"],
        "index_threads": index_threads,
        "loop": summary([engine.search_for(photos, plan.seconds) for _ in range(plan.repetitions)]),
        "paused": median_of([engine.search_for(photos, short, PAUSE_SECONDS) for _ in range(plan.repetitions)]),
        "forward_ms": median_of([engine.forward_ms(photos[0], short) for _ in range(plan.repetitions)]),
        "forward_batch_8": statistics.median(engine.forward_rate(photos, short) for _ in range(plan.repetitions)),
        "answers": answers,
    }


def main() -> None:
    """Read a plan from stdin, write its figures to stdout."""
    json.dump(measure(RawPlan(**json.load(sys.stdin))), sys.stdout)


if __name__ == "__main__":
    main()
