"""An index that meets failures, unusable embeddings, and changes in the middle of a search: nothing is lost."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import redis

from shared.catalogue import Catalogue
from shared.catalogue_change import ImageRef, ItemChange
from shared.settings import Settings
from tests.engine_bench import COLOURS, Bench, photo
from worker.index.flat_index import FlatIndex
from worker.index.vector_index import Neighbours, Rows, Vectors
from worker.live_index import LiveIndex

DIM, ENCODER = 8, "encoder"
X = np.eye(DIM, dtype=np.float32)[:1]


class WatchedIndex(FlatIndex):
    """An exact index that calls once when it has searched, and whose changes may fail."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.is_full = False
        self.after_search: Callable[[], object] | None = None

    def add(self, rows: Rows, vectors: Vectors) -> None:
        if self.is_full:
            raise MemoryError
        super().add(rows, vectors)

    def remove(self, rows: Rows) -> int:
        if self.is_full:
            raise MemoryError
        return super().remove(rows)

    def search(self, queries: Vectors, k: int, allowed: Rows | None = None) -> Neighbours:
        found = super().search(queries, k, allowed)
        call, self.after_search = self.after_search, None
        if call is not None:
            call()
        return found


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/lookalike.sqlite3"


@pytest.fixture
def index() -> WatchedIndex:
    return WatchedIndex(DIM)


@pytest.fixture
def live(catalogue: Catalogue, index: WatchedIndex) -> LiveIndex:
    return LiveIndex(catalogue, index, ENCODER)


def at(score: float) -> bytes:
    """Return a unit vector at this cosine from X."""
    return np.array([score, np.sqrt(1 - score**2)] + [0] * (DIM - 2), "<f4").tobytes()


def put(catalogue: Catalogue, items: Mapping[str, bytes], encoder_id: str = ENCODER) -> None:
    """Write items with one image each, of these embeddings."""
    with catalogue.change() as change:
        for item_id, vector in items.items():
            sha256 = hashlib.sha256(item_id.encode() + vector).hexdigest()
            change.add_embeddings(encoder_id, {sha256: vector})
            change.put([ItemChange(item_id, "", {}, [ImageRef(sha256, "image/png")])])


def found(live: LiveIndex) -> dict[str, float]:
    hits = live.nearest_items(X, 9)
    told = live.hits([row for row, _ in hits])
    return {told[row][0].item_id: round(score, 4) for row, score in hits if row in told}


def test_what_could_not_be_added_is_added_by_the_next_refresh(
    catalogue: Catalogue, live: LiveIndex, index: WatchedIndex
) -> None:
    put(catalogue, {"a": at(0.9), "b": at(0.5)})
    live.refresh()
    put(catalogue, {"a": at(0.7), "c": at(0.6)})
    before = live.nearest_items(X, 9)
    index.is_full = True
    for _ in range(2):
        with pytest.raises(MemoryError):
            live.refresh()
        assert live.nearest_items(X, 9) == before
    index.is_full = False
    assert live.refresh() == catalogue.state().seq
    assert found(live) == {"a": 0.7, "c": 0.6, "b": 0.5}
    assert len(live) == 3


def test_what_could_not_be_removed_is_removed_by_the_next_refresh(
    catalogue: Catalogue, live: LiveIndex, index: WatchedIndex
) -> None:
    put(catalogue, {"a": at(0.9), "b": at(0.5)})
    live.refresh()
    with catalogue.change() as change:
        change.delete(["a"])
    index.is_full = True
    with pytest.raises(MemoryError):
        live.refresh()
    index.is_full = False
    live.refresh()
    assert found(live) == {"b": 0.5}
    assert len(live) == 1


def test_an_embedding_that_can_not_be_searched_is_left_out_and_all_others_are_found(
    catalogue: Catalogue, live: LiveIndex, caplog: pytest.LogCaptureFixture
) -> None:
    unusable = {"long": at(0.5) * 2, "short": at(0.5)[:-4], "cut": at(0.5)[:-1], "zero": bytes(4 * DIM)}
    put(catalogue, {"first": at(0.9), **unusable, "last": at(0.8)})
    assert live.refresh() == catalogue.state().seq
    assert found(live) == {"first": 0.9, "last": 0.8}
    assert [name for name in unusable if f"item '{name}'" in caplog.text] == list(unusable)
    put(catalogue, {"short": at(0.7)})
    live.refresh()
    assert found(live) == {"first": 0.9, "last": 0.8, "short": 0.7}


def test_a_search_finds_an_item_whose_image_is_replaced_while_it_searches(
    catalogue: Catalogue, live: LiveIndex, index: WatchedIndex
) -> None:
    put(catalogue, {"a": at(0.9), "b": at(0.5)})
    live.refresh()

    def replace() -> None:
        put(catalogue, {"a": at(0.8)})
        live.refresh()

    index.after_search = replace
    assert found(live) == {"a": 0.8, "b": 0.5}


def test_a_result_tells_of_an_item_whose_image_is_replaced_before_it_is_read(
    settings: Settings, redis_client: redis.Redis
) -> None:
    bench, index = Bench(settings, redis_client), WatchedIndex(3)
    bench.engine = bench.new_engine(live_index=LiveIndex(bench.catalogue, index, bench.encoder.id))
    vector = (np.array(COLOURS["red"]) / np.linalg.norm(COLOURS["red"])).astype("<f4")
    index.after_search = lambda: put(bench.catalogue, {"red": vector.tobytes()}, bench.encoder.id)
    result = bench.search(photo(COLOURS["red"]), k=3)
    assert result["hits"][0]["item_id"] == "red"
    assert len(result["hits"]) == 3
