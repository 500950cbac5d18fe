"""An engine of small real parts, for tests of what a search computes and what it does not."""

import io
from collections.abc import Callable
from hashlib import sha256
from threading import Semaphore
from typing import Any

import numpy as np
import redis
from PIL import Image

from shared.catalogue import Catalogue
from shared.catalogue_change import ImageRef, ItemChange
from shared.database import connect_database
from shared.job_record import JobRecord
from shared.jobs import Jobs
from shared.migrations import upgrade
from shared.releases import Release
from shared.schemas import JobKind
from shared.settings import Settings
from shared.store import Store
from worker.encoder import Encoder
from worker.engine import Engine
from worker.index.flat_index import FlatIndex
from worker.item_index import ItemIndex
from worker.live_index import LiveIndex

SECONDS = 30
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
TRANSFORM = {
    "trim": 0.1,
    "resize": 8,
    "size": 8,
    "interpolation": "bilinear",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}


class ColourEncoder(Encoder):
    """Mean colour, brought to norm 1; keeps the size of each batch, and runs when the test lets it."""

    def __init__(self, identity: str = "colour") -> None:
        super().__init__({"id": identity, "dim": 3, "transform": TRANSFORM})
        self.batches: list[int] = []
        self.passes: Semaphore | None = None

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        self.batches.append(len(pixels))
        if self.passes is not None:
            assert self.passes.acquire(timeout=SECONDS)
        means = pixels.mean(axis=(1, 2)).astype(np.float32)  # (n, 3)
        embeddings: np.ndarray = means / np.linalg.norm(means, axis=1, keepdims=True)
        return embeddings


class Bench:
    """An engine and what it is made of."""

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self.settings = settings
        self.redis = client
        self.jobs = Jobs(client, settings)
        database = connect_database(settings.database_url)
        upgrade(database)
        self.catalogue = Catalogue(database)
        self.encoder = ColourEncoder()
        with self.catalogue.change() as change:
            for name, colour in COLOURS.items():
                vector = np.array(colour, dtype="<f4") / np.linalg.norm(colour).astype("<f4")
                digest = sha256(name.encode()).hexdigest()
                change.add_embeddings(self.encoder.id, {digest: vector.astype("<f4").tobytes()})
                change.put([ItemChange(name, name.title(), {}, [ImageRef(digest, "image/png")])])
        self.engine = self.new_engine()

    def new_engine(self, min_cosine: float = 1.0, live_index: ItemIndex[Any] | None = None) -> Engine:
        return Engine(
            settings=self.settings,
            redis=self.redis,
            catalogue=self.catalogue,
            store=Store(self.settings.store_url),
            release=Release("colour.flat", "colour", {"similar": {"min_cosine": min_cosine}}),
            encoder=self.encoder,
            live_index=LiveIndex(self.catalogue, FlatIndex(3), self.encoder.id) if live_index is None else live_index,
            fetch=lambda url, max_bytes: b"",
        )

    def job(self, photo: bytes, **asked: Any) -> JobRecord:
        defaults = {"k": 2, "min_score": None, "filter": None, "crop": None, "use_caches": True}
        source = {"source": {"sha256": sha256(photo).hexdigest()}}
        return self.jobs.create(JobKind.SEARCH, {**defaults, **source, **asked}, image=photo)

    def search(self, photo: bytes, wanted: Callable[[], None] = lambda: None, **asked: Any) -> dict[str, Any]:
        """Search and end the job, as the task does; returns the result."""
        job = self.job(photo, **asked)
        answer = self.engine.search(job, photo, wanted)
        assert self.jobs.succeed(job.id, answer.result, answer.entries)
        result = self.jobs.get(job.id).result
        assert result is not None
        return result


def photo(colour: tuple[int, int, int], quality: int = 90) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, "JPEG", quality=quality)
    return file.getvalue()
