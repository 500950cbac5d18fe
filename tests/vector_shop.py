"""A catalogue of items whose embeddings a test chooses, and an engine that searches it by item."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import redis

from shared.catalogue import Catalogue
from shared.catalogue_change import ImageRef, ItemChange
from shared.database import connect_database
from shared.jobs import Jobs
from shared.migrations import upgrade
from shared.releases import Release
from shared.settings import Settings
from shared.store import Store
from worker.encoder import Encoder
from worker.engine import Engine
from worker.index.flat_index import FlatIndex
from worker.item_index import ItemIndex
from worker.live_index import LiveIndex

DIM = 8
TRANSFORM = {
    "trim": 0.1,
    "resize": 8,
    "size": 8,
    "interpolation": "bilinear",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}


def unit(vectors: Any) -> np.ndarray:
    """Return float32 rows of L2 norm 1."""
    rows = np.asarray(vectors, dtype=np.float32)
    found: np.ndarray = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return found


def random_vectors(count: int, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(count, DIM)))


class StoredEncoder(Encoder):
    """Of embeddings that are all stored already."""

    def __init__(self) -> None:
        super().__init__({"id": "chosen", "dim": DIM, "transform": TRANSFORM})

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        raise AssertionError(f"{len(pixels)} photos were to be embedded")


class VectorShop:
    """Items by id, each with attributes and the embeddings of its images."""

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self.settings = settings
        self.redis = client
        self.jobs = Jobs(client, settings)
        database = connect_database(settings.database_url)
        upgrade(database)
        self.catalogue = Catalogue(database)
        self.store = Store(settings.store_url)
        self.encoder = StoredEncoder()
        self.vectors: dict[str, np.ndarray] = {}
        self.attributes: dict[str, dict[str, Any]] = {}

    def put(self, items: Mapping[str, Sequence[np.ndarray]], **attributes: Mapping[str, Any]) -> None:
        """Add items.

        Args:
            items: embeddings of the images, by id.
            attributes: by name, the values by item.
        """
        changes = []
        embeddings: dict[str, bytes] = {}
        for item_id, vectors in items.items():
            images = []
            for position, vector in enumerate(vectors):
                sha256 = hashlib.sha256(f"{item_id}/{position}".encode()).hexdigest()
                embeddings[sha256] = vector.astype("<f4").tobytes()
                images.append(ImageRef(sha256, "image/png"))
            self.attributes[item_id] = {
                name: values[item_id] for name, values in attributes.items() if item_id in values
            }
            self.vectors[item_id] = np.stack(vectors)
            changes.append(ItemChange(item_id, item_id.title(), self.attributes[item_id], images))
        with self.catalogue.change() as change:
            change.add_embeddings(self.encoder.id, embeddings)
            change.put(changes)

    def engine(self, min_cosine: float = 1.0, name: str = "flat", live_index: ItemIndex[Any] | None = None) -> Engine:
        release = Release(f"chosen.{name}", "chosen", {"similar": {"min_cosine": min_cosine}})
        return Engine(
            settings=self.settings,
            redis=self.redis,
            catalogue=self.catalogue,
            store=self.store,
            release=release,
            encoder=self.encoder,
            live_index=live_index or LiveIndex(self.catalogue, FlatIndex(DIM), self.encoder.id),
            fetch=lambda url, max_bytes: b"",
        )

    def scores(self, item_id: str) -> dict[str, float]:
        """Return the cosine of each other item's best image with the best of an item's images, the best first."""
        found = {
            other: max(float(np.dot(mine, theirs)) for mine in self.vectors[item_id] for theirs in vectors)
            for other, vectors in self.vectors.items()
            if other != item_id
        }
        return dict(sorted(found.items(), key=lambda entry: -entry[1]))
