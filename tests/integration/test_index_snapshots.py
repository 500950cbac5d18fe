"""An index that is kept on disk: a new process begins with it, and holds what the database holds, whatever happened."""

import logging
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import enumerate as enumerate_threads

import numpy as np
import pytest
from sqlalchemy import Engine, event, text

from shared.catalogue import Catalogue
from shared.catalogue_change import ImageRef, ItemChange
from shared.database import connect_database
from shared.migrations import upgrade
from tests.stack import wait_until
from worker import index_keeper
from worker.index.flat_index import FlatIndex
from worker.index.snapshot import Snapshots
from worker.index.vector_index import Vectors
from worker.live_index import LiveIndex

DIM, ENCODER = 8, "encoder"
ITEMS, IMAGES = 5, 300  # more rows than what makes a snapshot due
Open = Callable[[], LiveIndex]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def open_index(catalogue: Catalogue, folder: Path) -> Open:
    return lambda: LiveIndex(catalogue, FlatIndex(DIM), ENCODER, Snapshots(folder, ENCODER, DIM))


@pytest.fixture(autouse=True)
def small_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an index of some thousand short rows be large enough to be kept without a pause."""
    monkeypatch.setattr(index_keeper, "DUE_NUMBERS", 1000 * DIM)


def unit(count: int, seed: int) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def hash_of(vector: Vectors) -> str:
    return vector.tobytes().hex()[:64]


def put(catalogue: Catalogue, items: Mapping[str, Iterable[Vectors]], embedded: bool = True) -> None:
    with catalogue.change() as change:
        for item_id, vectors in items.items():
            known = {hash_of(vector): vector.astype("<f4").tobytes() for vector in vectors}
            if embedded:
                change.add_embeddings(ENCODER, known)
            change.put([ItemChange(item_id, "", {}, [ImageRef(sha256, "image/png") for sha256 in known])])


def fill(catalogue: Catalogue, seed: int = 0) -> None:
    put(catalogue, {f"i{number}": unit(IMAGES, seed + number) for number in range(ITEMS)})


def snapshots(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*"))


def keep(live: LiveIndex, folder: Path) -> LiveIndex:
    """Refresh, and wait until the index is kept and goes on with what was kept."""
    before = len(snapshots(folder))

    def is_kept() -> bool:
        live.refresh()  # as the thread that follows the catalogue does all the time
        return len(snapshots(folder)) > before and live.index.changes == 0

    wait_until(is_kept, 30, "it is kept")
    return live


def contents(live: LiveIndex) -> dict[int, list[float]]:
    live.refresh()
    rows, vectors = live.index.vectors(live.index.rows)
    assert len(rows) == len(live)
    return dict(zip(rows.tolist(), vectors.tolist(), strict=True))


def assert_as_new(live: LiveIndex, catalogue: Catalogue) -> None:
    """Compare with an index that is filled from the database."""
    new = LiveIndex(catalogue, FlatIndex(DIM), ENCODER)
    assert contents(live) == contents(new)
    for seed in range(5):
        for k, allowed in ((1, None), (7, None), (20, new.index.rows[::3])):
            query = unit(1, 900 + seed)
            assert live.nearest_items(query, k, allowed) == new.nearest_items(query, k, allowed)


def embeddings_read(engine: Engine, work: Callable[[], object]) -> int:
    """Return how many statements of some work read embeddings."""
    statements: list[str] = []

    def listen(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "embedding.vector" in statement:
            statements.append(statement)

    event.listen(engine, "before_cursor_execute", listen)
    try:
        work()
    finally:
        event.remove(engine, "before_cursor_execute", listen)
    return len(statements)


def test_an_index_begins_with_what_another_one_kept_without_reading_embeddings(
    catalogue: Catalogue, open_index: Open, folder: Path, engine: Engine
) -> None:
    fill(catalogue)
    keep(open_index(), folder)
    live = open_index()
    assert embeddings_read(engine, live.refresh) == 0
    assert (len(live), live.index.changes, live.refresh()) == (ITEMS * IMAGES, 0, catalogue.state().seq)
    assert_as_new(live, catalogue)


def test_what_changed_while_no_process_ran_is_applied(catalogue: Catalogue, open_index: Open, folder: Path) -> None:
    fill(catalogue)
    put(catalogue, {"gone": unit(2, 50), "purged": unit(2, 51), "later": unit(1, 52)})
    keep(open_index(), folder)
    put(catalogue, {"i1": unit(3, 60), "new": unit(2, 61)})
    put(catalogue, {"not embedded": unit(2, 62)}, embedded=False)
    with catalogue.change() as change:
        change.delete(["purged"])
    with catalogue.change() as change:
        change.purge_tombstones(datetime.now(UTC) + timedelta(hours=1))
        change.delete(["gone"])
    live = open_index()
    assert_as_new(live, catalogue)
    assert len(live) == (ITEMS - 1) * IMAGES + 3 + 2 + 1
    with catalogue.change() as change:
        change.add_embeddings(ENCODER, {hash_of(vector): vector.tobytes() for vector in unit(2, 62)})
        change.delete(["i2", "later"])
    assert_as_new(live, catalogue)


def test_changes_go_on_upon_what_was_kept(catalogue: Catalogue, open_index: Open, folder: Path) -> None:
    fill(catalogue)
    live = keep(open_index(), folder)
    put(catalogue, {"i0": unit(2, 70), "new": unit(2, 71)})
    assert_as_new(live, catalogue)
    assert live.index.changes == IMAGES + 4
    with catalogue.change() as change:
        change.delete([f"i{number}" for number in range(ITEMS)])
    assert_as_new(live, catalogue)
    assert len(live) == 2


def test_an_index_that_grows_is_kept_again_once_half_of_it_is_new(
    catalogue: Catalogue, open_index: Open, folder: Path
) -> None:
    fill(catalogue)
    keep(open_index(), folder)
    put(catalogue, {f"j{number}": unit(IMAGES, 100 + number) for number in range(4)})
    live = open_index()
    live.refresh()
    assert len(snapshots(folder)) == 1  # 1,200 of 2,700: that waits for a pause
    put(catalogue, {"k": unit(IMAGES, 200)})
    keep(live, folder)
    assert_as_new(live, catalogue)
    assert_as_new(open_index(), catalogue)


def test_what_searches_compare_with_in_no_time_waits_for_a_pause_however_much_of_all_it_is(
    catalogue: Catalogue, folder: Path, open_index: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_keeper, "DUE_NUMBERS", ITEMS * IMAGES * DIM + 1)
    fill(catalogue)
    live = open_index()
    live.refresh()
    live.refresh()
    assert len(live) == ITEMS * IMAGES
    assert "write-snapshot" not in {thread.name for thread in enumerate_threads()}
    assert snapshots(folder) == []
    monkeypatch.setattr(index_keeper, "PAUSE_SECONDS", 0.0)
    keep(live, folder)


def test_a_snapshot_of_another_catalogue_is_not_used(
    catalogue: Catalogue, open_index: Open, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The other one has the same rows, items and seq, but other images."""
    other_engine = connect_database(f"sqlite:///{tmp_path}/other.sqlite3")
    upgrade(other_engine)
    other = Catalogue(other_engine)
    fill(other, seed=500)
    keep(LiveIndex(other, FlatIndex(DIM), ENCODER, Snapshots(folder, ENCODER, DIM)), folder)
    other_engine.dispose()
    fill(catalogue)
    assert other.state().seq == catalogue.state().seq
    with caplog.at_level(logging.WARNING):
        live = open_index()
        live.refresh()
    assert "holds little of this catalogue" in caplog.text
    assert_as_new(live, catalogue)


def test_a_database_that_was_set_back_to_an_older_state_is_what_counts(
    catalogue: Catalogue, open_index: Open, folder: Path, engine: Engine
) -> None:
    fill(catalogue)
    older = catalogue.state().seq
    put(catalogue, {"lost": unit(5, 80)})
    keep(open_index(), folder)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM item_image WHERE item_id = 'lost'"))
        connection.execute(text("DELETE FROM item WHERE id = 'lost'"))
        connection.execute(text("UPDATE catalogue_state SET seq = :seq"), {"seq": older})
    live = open_index()
    assert_as_new(live, catalogue)
    assert len(live) == ITEMS * IMAGES


def test_a_damaged_snapshot_costs_time_but_nothing_else(
    catalogue: Catalogue, open_index: Open, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(catalogue)
    keep(open_index(), folder)
    (path,) = snapshots(folder)
    vectors = (path / "vectors.faiss").read_bytes()
    (path / "vectors.faiss").write_bytes(vectors[: len(vectors) // 2])
    with caplog.at_level(logging.WARNING):
        live = open_index()
        live.refresh()
    assert "vectors.faiss is damaged" in caplog.text
    assert_as_new(keep(live, folder), catalogue)


def test_a_folder_that_can_not_be_written_leaves_the_index_as_it_was(
    catalogue: Catalogue, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    fill(catalogue)
    live = LiveIndex(catalogue, FlatIndex(DIM), ENCODER, Snapshots(tmp_path / "file" / "kept", ENCODER, DIM))
    with caplog.at_level(logging.WARNING):
        live.refresh()
        wait_until(lambda: "can't be kept on disk" in caplog.text, 20, "it says so")
    assert_as_new(live, catalogue)


def test_a_mapped_index_takes_memory_only_for_what_is_read(tmp_path: Path) -> None:
    """Measured in a process of its own: anonymous memory, which only this process has, does not grow by the file."""
    count, dim = 20_000, 512  # 41 MB
    index = FlatIndex(dim)
    for start in range(0, count, 5000):
        vectors = np.random.default_rng(start).standard_normal((5000, dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        index.add(np.arange(start, start + 5000), vectors)
    index.save(tmp_path / "vectors")
    script = f"""
import re, sys
from pathlib import Path
import numpy as np
from worker.index.flat_index import FlatIndex
def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
rows, query = np.arange({count}), np.eye({dim}, dtype=np.float32)[:1]
before = anonymous()
index = FlatIndex.mapped(Path({str(tmp_path / "vectors")!r}), rows)
found = index.search(query, 5)
print(anonymous() - before, *found.rows[0])
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    grown, *rows = map(int, done.stdout.split())
    assert rows == index.search(np.eye(dim, dtype=np.float32)[:1], 5).rows[0].tolist()
    assert grown < 10_000
