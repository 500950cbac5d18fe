"""A live index whose base is approximate: built from what is stored, swapped in, shared by processes, refreshed."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from shared.catalogue import Catalogue
from tests.integration.test_index_snapshots import hash_of, put, snapshots
from tests.stack import wait_until
from worker import index_keeper
from worker.index.approximate_index import ApproximateIndex
from worker.index.flat_index import FlatIndex
from worker.index.recipe import IndexRecipe
from worker.index.snapshot import Snapshots
from worker.index.vector_index import Vectors
from worker.indexed_images import embedded_pages
from worker.live_index import LiveIndex

pytestmark = pytest.mark.slow

DIM, ENCODER, ITEMS, IMAGES = 16, "encoder", 150, 10
RECIPE = IndexRecipe(0.9, factory="HNSW16_SQ8")
Open = Callable[[], LiveIndex]


def vectors_of(item: int, count: int = IMAGES) -> Vectors:
    vectors = np.random.default_rng(item).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def open_index(catalogue: Catalogue, folder: Path) -> Open:
    return lambda: LiveIndex(catalogue, FlatIndex(DIM), ENCODER, Snapshots(folder, ENCODER, DIM, RECIPE))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_keeper, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(index_keeper, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(index_keeper, "BETWEEN_SECONDS", 0.0)
    monkeypatch.setattr(index_keeper, "REST_FACTOR", 0)


def fill(catalogue: Catalogue) -> None:
    put(catalogue, {f"i{item}": vectors_of(item) for item in range(ITEMS)})


def until_kept(live: LiveIndex, folder: Path, builds: int) -> None:
    def is_kept() -> bool:
        live.refresh()
        return len(snapshots(folder)) >= builds and live.index.changes == 0 and not live.index.is_exact

    wait_until(is_kept, 60, "an approximate base is built and goes on")


def found_items(live: LiveIndex, item: int) -> list[str]:
    hits = live.nearest_items(vectors_of(item)[:1], 3)
    told = live.hits([row for row, _ in hits])
    return [told[row][0].item_id for row, _ in hits]


def test_an_index_that_is_exact_becomes_approximate_as_its_recipe_says(
    catalogue: Catalogue, open_index: Open, folder: Path
) -> None:
    fill(catalogue)
    live = open_index()
    live.refresh()
    until_kept(live, folder, 1)
    assert len(live) == ITEMS * IMAGES
    assert [found_items(live, item)[0] for item in range(20)] == [f"i{item}" for item in range(20)]
    again = open_index()
    again.refresh()
    assert (len(again), again.index.changes, again.index.is_exact) == (ITEMS * IMAGES, 0, False)


def test_changes_are_found_at_once_and_folded_in_later(catalogue: Catalogue, open_index: Open, folder: Path) -> None:
    fill(catalogue)
    live = open_index()
    live.refresh()
    until_kept(live, folder, 1)
    put(catalogue, {"i3": vectors_of(900, 2), "new": vectors_of(901, 1)})
    with catalogue.change() as change:
        change.delete(["i5"])
    live.refresh()
    assert live.index.changes == IMAGES + 2 + 1 + IMAGES
    assert found_items(live, 900)[0] == "i3"
    assert found_items(live, 901)[0] == "new"
    assert "i5" not in found_items(live, 5)
    put(catalogue, {f"j{item}": vectors_of(1000 + item) for item in range(110)})
    live.refresh()
    until_kept(live, folder, 2)
    assert len(live) == (ITEMS - 2) * IMAGES + 3 + 110 * IMAGES
    assert found_items(live, 1042)[0] == "j42"
    assert "i5" not in found_items(live, 5)


def test_what_a_release_built_from_stored_embeddings_is_what_a_worker_opens(
    catalogue: Catalogue, open_index: Open, folder: Path
) -> None:
    fill(catalogue)
    put(catalogue, {"not embedded": vectors_of(77)[:3] * np.float32(-1)}, embedded=False)
    with catalogue.change() as change:
        change.add_embeddings(ENCODER, {hash_of(-vectors_of(77)[0]): b"too short"})
    pages = embedded_pages(catalogue, ENCODER, DIM)
    built = Snapshots(folder, ENCODER, DIM, RECIPE).write(pages, ITEMS * IMAGES)
    assert isinstance(built.index, ApproximateIndex)
    assert len(built.index) == ITEMS * IMAGES
    live = open_index()
    live.refresh()
    assert (len(live), live.index.changes, live.index.is_exact) == (ITEMS * IMAGES, 0, False)
    assert len(snapshots(folder)) == 1


def test_a_worker_goes_on_with_what_another_process_built(catalogue: Catalogue, open_index: Open, folder: Path) -> None:
    fill(catalogue)
    live = open_index()
    live.refresh()
    until_kept(live, folder, 1)
    put(catalogue, {"new": vectors_of(901, 3)})
    live.refresh()
    assert live.index.changes == 3
    Snapshots(folder, ENCODER, DIM, RECIPE).write(embedded_pages(catalogue, ENCODER, DIM), ITEMS * IMAGES)
    until_kept(live, folder, 2)
    assert len(snapshots(folder)) == 2
    assert found_items(live, 901)[0] == "new"


def test_a_newer_base_that_is_damaged_is_passed_over_once(
    catalogue: Catalogue, open_index: Open, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(catalogue)
    live = open_index()
    live.refresh()
    until_kept(live, folder, 1)
    Snapshots(folder, ENCODER, DIM, RECIPE).write(embedded_pages(catalogue, ENCODER, DIM), ITEMS * IMAGES)
    structure = snapshots(folder)[-1] / "structure.faiss"
    structure.write_bytes(structure.read_bytes()[:-10])

    def is_told() -> bool:
        live.refresh()
        return "structure.faiss is damaged" in caplog.text

    with caplog.at_level(logging.WARNING):
        wait_until(is_told, 60, "it says so")
        for _ in range(20):
            live.refresh()
    assert caplog.text.count("structure.faiss is damaged") == 1
    assert found_items(live, 3)[0] == "i3"


def test_only_one_process_of_a_machine_builds_at_a_time(catalogue: Catalogue, open_index: Open, folder: Path) -> None:
    fill(catalogue)
    with Snapshots(folder, ENCODER, DIM, RECIPE).writing() as is_alone:
        assert is_alone
        live = open_index()
        for _ in range(3):
            live.refresh()
        with Snapshots(folder, ENCODER, DIM, RECIPE).writing() as is_second:
            assert not is_second
        assert snapshots(folder) == []
    until_kept(live, folder, 1)


def test_a_base_that_no_longer_reaches_its_recall_is_not_taken(
    catalogue: Catalogue, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(catalogue)
    hopeless = IndexRecipe(0.999, factory="IVF4,PQ1x4")
    live = LiveIndex(catalogue, FlatIndex(DIM), ENCODER, Snapshots(folder, ENCODER, DIM, hopeless))

    def is_refused() -> bool:
        live.refresh()
        return "goes on with the base that it has" in caplog.text

    with caplog.at_level(logging.ERROR):
        wait_until(is_refused, 60, "it says so")
    assert "--recall-target" in caplog.text
    assert snapshots(folder) == []
    assert found_items(live, 3)[0] == "i3"


def test_no_search_fails_or_misses_an_item_while_bases_change(
    catalogue: Catalogue, open_index: Open, folder: Path
) -> None:
    fill(catalogue)
    live = open_index()
    live.refresh()
    until_kept(live, folder, 1)
    stopped: list[bool] = []

    def search(first: int) -> int:
        searches = 0
        while not stopped or not searches:
            item = (first + searches) % ITEMS
            assert found_items(live, item)[0] == f"i{item}"
            searches += 1
        return searches

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(search, number) for number in range(4)]
        try:
            Snapshots(folder, ENCODER, DIM, RECIPE).write(embedded_pages(catalogue, ENCODER, DIM), ITEMS * IMAGES)
            until_kept(live, folder, 2)
        finally:
            stopped.append(True)
        assert min(future.result() for future in running) > 0
