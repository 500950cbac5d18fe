"""From a photo's bytes to its embedding, for many threads at once: decoded side by side, embedded in batches."""

import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from threading import BoundedSemaphore
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from shared.schemas import Crop
from shared.settings import Settings
from worker.batcher import MicroBatcher
from worker.decode import decode_pixels
from worker.encoder import Encoder
from worker.index.vector_index import Vectors
from worker.single_flight import SingleFlight
from worker.steps import Steps

# Each may take up to 16 bytes a pixel while it is decoded; more at once would not be faster.
PHOTOS_AT_ONCE = 4
# Enough for what can be at work together; finished ones are in Redis a moment later.
REMEMBERED = 256
# A search whose photo waits for longer looks whether anybody still wants its answer.
CHECK_SECONDS = 0.2

Value = TypeVar("Value")
StillWanted = Callable[[], None]
"""Raises if the answer is not wanted any more: the job was cancelled, or its time is over."""


class Embedder:
    """Embeds photos with one encoder; threads share it. Its batcher's threads end when nobody refers to it any more."""

    def __init__(self, encoder: Encoder, settings: Settings) -> None:
        """Args:
        encoder: whose embeddings are wanted.
        settings: limits of photos and batches.
        """
        self._encoder = encoder
        self._settings = settings
        self._decoding = BoundedSemaphore(PHOTOS_AT_ONCE)
        self._flights = SingleFlight[str, Vectors](REMEMBERED if settings.cache_ttl_seconds else 0)
        self._batcher = MicroBatcher[np.ndarray, tuple[Vectors, float]](
            partial(_forward, encoder),
            max_items=settings.batch_max_images,
            max_waiting=settings.waiting_max_images,
            name="embed",
            threads=encoder.passes_at_once,
        )
        weakref.finalize(self, self._batcher.close)

    def __len__(self) -> int:
        """Return how many photos wait for the model."""
        return len(self._batcher)

    def embed(self, photo: bytes, crop: dict[str, Any] | None, steps: Steps, still_wanted: StillWanted) -> Vectors:
        """Decode a photo and return its embedding, float32 (1, dim).

        Raises:
            InvalidImage: if it can't be decoded.
            Exception: what `still_wanted` raises; the model then does not run, unless it has begun.
        """
        settings = self._settings
        part = Crop.model_validate(crop) if crop else None
        limits = {"max_bytes": settings.upload_max_bytes, "max_pixels": settings.image_max_pixels}
        with self._decoding:
            pixels = decode_pixels(photo, self._encoder.transform, **limits, crop=part)
        steps.lap("decode")
        waiting = self._batcher.submit(pixels)
        try:
            embedding, seconds = _result(waiting, still_wanted)
        except BaseException:
            waiting.cancel()
            raise
        steps.split("embed", seconds)
        steps.lap("batch")
        return embedding

    def embed_once(
        self, key: str, photo: bytes, crop: dict[str, Any] | None, steps: Steps, still_wanted: StillWanted
    ) -> tuple[Vectors, bool]:
        """Do the same, unless another thread embeds this photo or has just done so.

        Args:
            key: names photo and crop.
            photo: see `embed`.
            crop: see `embed`.
            steps: see `embed`.
            still_wanted: see `embed`.

        Returns:
            The embedding, and whether it was made for this call.
        """
        embedding, was_made = self._flights.get(
            key,
            lambda: self.embed(photo, crop, steps, still_wanted),
            lambda flight: _result(flight, still_wanted),
        )
        if not was_made:
            steps.lap("batch")
        return embedding, was_made


def _forward(encoder: Encoder, batch: Sequence[np.ndarray]) -> list[tuple[Vectors, float]]:
    """Return for each photo its embedding, float32 (1, dim), and how long the forward pass of all took."""
    start = perf_counter()
    embeddings = encoder.embed(np.stack(batch))  # (n, dim)
    seconds = perf_counter() - start
    # Copies: a view would keep the whole batch in memory as long as one of its rows.
    return [(row[np.newaxis].copy(), seconds) for row in embeddings]


def _result(future: Future[Value], still_wanted: StillWanted) -> Value:
    while True:
        try:
            return future.result(CHECK_SECONDS)
        except TimeoutError:
            if future.done():
                return future.result()
        still_wanted()
