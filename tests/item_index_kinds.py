"""Every kind of index that an engine may search, on a test's own catalogue; brute force is the oracle of all."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import redis
from sqlalchemy import select

from shared.attributes import AttributeValue
from shared.catalogue import Catalogue
from shared.catalogue_change import ImageRef, ItemChange
from shared.filters import compile_filter
from shared.tables import EmbeddingRow, ItemImageRow
from tests.faiss_kinds import DIM, FACTORIES, fill, train
from worker.hit_cache import Hit
from worker.index.flat_index import FlatIndex
from worker.index.recipe import EXACT
from worker.index.vector_index import Rows, Vectors, check_search
from worker.item_index import ItemIndex, Other
from worker.live_index import LiveIndex
from worker.milvus.connection import MilvusConnection
from worker.milvus.milvus_index import MilvusIndex

ENCODER = "encoder"
KINDS = ("brute force", "flat", *FACTORIES, "milvus")
X, Y = np.eye(DIM, dtype=np.float32)[:2]


class BruteForceItems:
    """Reads the whole catalogue for each search, and compares everything with everything."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def _rows(self) -> list[tuple[int, str, Vectors]]:
        image = ItemImageRow
        statement = select(image.id, image.item_id, EmbeddingRow.vector).where(
            EmbeddingRow.sha256 == image.sha256, EmbeddingRow.encoder_id == ENCODER
        )
        with self._catalogue.engine.connect() as connection:
            return [(row.id, row.item_id, np.frombuffer(row.vector, "<f4")) for row in connection.execute(statement)]

    dim, is_exact = DIM, True

    def __len__(self) -> int:
        return len(self._rows())

    def refresh(self) -> int:
        return self._catalogue.state().seq

    def follow(self) -> int:
        return self.refresh()

    def allowed(self, condition: Mapping[str, Any] | None) -> set[int] | None:
        if not condition:
            return None
        return set(self._catalogue.image_rows(compile_filter(condition, self._catalogue.attribute_types())))

    def nearest_items(
        self, queries: Vectors, k: int, allowed: set[int] | None = None, without: str | None = None
    ) -> list[tuple[int, float]]:
        check_search(queries, k, DIM)
        best: dict[str, tuple[float, int]] = {}
        for row, item_id, vector in self._rows():
            if item_id != without and (allowed is None or row in allowed):
                candidate = -float((queries @ vector).max()), row
                best[item_id] = min(best.get(item_id, candidate), candidate)
        return [(row, -negative) for negative, row in sorted(best.values())[:k]]

    def hits(self, rows: Sequence[int]) -> dict[int, Hit]:
        return self._catalogue.hit_rows(rows)

    def less(self, allowed: set[int] | None, condition: Mapping[str, Any]) -> set[int]:
        every = {row for row, _, _ in self._rows()} if allowed is None else allowed
        return every - (self.allowed(condition) or set())

    def items_of(self, rows: Sequence[int]) -> list[str | None]:
        items = {row: item_id for row, item_id, _ in self._rows()}
        return [items.get(row) for row in rows]

    def vectors(self, rows: Sequence[int]) -> tuple[Rows, Vectors]:
        known = {row: vector for row, _, vector in self._rows() if row in set(rows)}
        return np.array(list(known), np.int64), np.array(list(known.values()), np.float32).reshape(-1, DIM)

    def images_of(self, item_ids: Sequence[str]) -> tuple[list[str], Vectors]:
        known = [(item_id, vector) for _, item_id, vector in self._rows() if item_id in item_ids]
        return [item_id for item_id, _ in known], np.array([vector for _, vector in known], np.float32).reshape(-1, DIM)

    def nearest_others(self, owners: Sequence[str], queries: Vectors) -> list[Other | None]:
        found: list[Other | None] = []
        for owner, query in zip(owners, queries, strict=True):
            others = [(float(query @ vector), item_id) for _, item_id, vector in self._rows() if item_id != owner]
            found.append(max(others)[::-1] if others else None)
        return found


class OnBase(LiveIndex):
    """A LiveIndex all of whose rows are in a base of an approximate kind, however few they are."""

    def __init__(self, catalogue: Catalogue, factory: str, folder: Path) -> None:
        super().__init__(catalogue, FlatIndex(DIM), ENCODER)
        path = folder.parent / f"trained {factory}"  # of all tests of a session: learning takes seconds
        if not path.exists():
            train(factory, path)
        self._trained = path, factory
        self._folder = folder

    def follow(self) -> int:
        seq = super().follow()
        rows, vectors = self.index.vectors(self.index.rows)
        self.index.rebase(fill(self._trained, self._folder, rows, vectors), FlatIndex(DIM))
        return seq


def open_kind(
    kind: str, catalogue: Catalogue, milvus: MilvusConnection, client: redis.Redis, folder: Path
) -> ItemIndex[Any]:
    """Open an index of a kind, on whatever the catalogue holds."""
    if kind == "brute force":
        return BruteForceItems(catalogue)
    if kind == "flat":
        return LiveIndex(catalogue, FlatIndex(DIM), ENCODER)
    if kind == "milvus":
        return in_milvus(catalogue, milvus, client)
    return OnBase(catalogue, FACTORIES[kind], folder)


def in_milvus(
    catalogue: Catalogue, milvus: MilvusConnection, client: redis.Redis, release: str | None = None
) -> MilvusIndex:
    """Open an index in Milvus, of a release that has a collection of its own."""
    index = MilvusIndex(catalogue, client, milvus, release or f"r-{uuid.uuid4().hex}", ENCODER, DIM, EXACT)
    index.open()
    return index


def at(score: float) -> Vectors:
    """Return a unit vector (dim,) at this cosine from X, and at right angles to Y."""
    vector = np.zeros(DIM, np.float32)
    vector[0], vector[2] = score, np.sqrt(1 - score**2)
    return vector


def name_of(vector: Vectors) -> str:
    return vector.tobytes().hex()[:64]


def put(
    catalogue: Catalogue,
    items: Mapping[str, Iterable[Vectors]],
    embedded: bool = True,
    title: str = "",
    attributes: Mapping[str, Mapping[str, AttributeValue]] | None = None,
) -> None:
    """Write items, each with an image for each vector."""
    with catalogue.change() as change:
        for item_id, vectors in items.items():
            known = {name_of(vector): vector.astype("<f4").tobytes() for vector in vectors}
            if embedded:
                change.add_embeddings(ENCODER, known)
            images = [ImageRef(sha256, "image/png") for sha256 in known]
            change.put([ItemChange(item_id, title, (attributes or {}).get(item_id, {}), images)])


def delete(catalogue: Catalogue, *item_ids: str) -> None:
    with catalogue.change() as change:
        change.delete(item_ids)


def found(
    index: ItemIndex[Any], catalogue: Catalogue, *queries: Vectors, k: int = 10, **options: Any
) -> dict[str, float]:
    """Return item ids and scores, best first, after what is committed has been applied."""
    seq = catalogue.state().seq
    while index.follow() < seq:
        pass  # one step of several
    assert index.refresh() == seq
    allowed = index.allowed(options.pop("filter", None))
    hits = index.nearest_items(np.stack(queries), k, allowed, **options)
    owners = catalogue.hit_rows([row for row, _ in hits])
    assert index.hits([row for row, _ in hits]) == owners
    return {owners[row][0].item_id: score for row, score in hits}
