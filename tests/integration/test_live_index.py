"""The index in step with the catalogue, and items found by their images, on SQLite and PostgreSQL."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Barrier, Event

import numpy as np
import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import SQLAlchemyError

from shared.catalogue import Catalogue
from shared.catalogue_change import ImageRef, ItemChange
from tests.stack import wait_until
from worker.index.flat_index import FlatIndex
from worker.index.vector_index import Vectors
from worker.live_index import LiveIndex

DIM, ENCODER = 8, "encoder"
X, Y = np.eye(DIM, dtype=np.float32)[:2]


@pytest.fixture
def live(catalogue: Catalogue) -> LiveIndex:
    return LiveIndex(catalogue, FlatIndex(DIM), ENCODER)


def at(score: float) -> Vectors:
    """Return a unit vector (dim,) at this cosine from X, and at right angles to Y."""
    vector = np.zeros(DIM, np.float32)
    vector[0], vector[2] = score, np.sqrt(1 - score**2)
    return vector


def name_of(vector: Vectors) -> str:
    return vector.tobytes().hex()[:64]


def put(catalogue: Catalogue, items: Mapping[str, Iterable[Vectors]], embedded: bool = True, title: str = "") -> None:
    """Write items, each with an image for each vector."""
    with catalogue.change() as change:
        for item_id, vectors in items.items():
            known = {name_of(vector): vector.astype("<f4").tobytes() for vector in vectors}
            if embedded:
                change.add_embeddings(ENCODER, known)
            change.put([ItemChange(item_id, title, {}, [ImageRef(sha256, "image/png") for sha256 in known])])


def delete(catalogue: Catalogue, *item_ids: str) -> None:
    with catalogue.change() as change:
        change.delete(item_ids)


def found(live: LiveIndex, catalogue: Catalogue, *queries: Vectors, k: int = 10, **options: object) -> dict[str, float]:
    """Return item ids and rounded scores, best first, after a refresh."""
    live.refresh()
    hits = live.nearest_items(np.stack(queries), k, **options)  # type: ignore[arg-type]
    owners = catalogue.hit_rows([row for row, _ in hits])
    assert live.hits([row for row, _ in hits]) == owners
    return {owners[row][0].item_id: round(score, 4) for row, score in hits}


@contextmanager
def before_statements(engine: Engine, call: Callable[[str], None]) -> Iterator[None]:
    """Call with every statement, before the database gets it."""

    def listen(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        call(statement)

    event.listen(engine, "before_cursor_execute", listen)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", listen)


def test_what_was_committed_is_found_and_what_was_deleted_is_gone(catalogue: Catalogue, live: LiveIndex) -> None:
    assert found(live, catalogue, X) == {}
    put(catalogue, {"a": [at(0.9)], "b": [at(0.5)]})
    assert found(live, catalogue, X) == {"a": 0.9, "b": 0.5}
    put(catalogue, {"b": [at(0.99)], "c": [at(0.1)]})
    assert found(live, catalogue, X) == {"b": 0.99, "a": 0.9, "c": 0.1}
    delete(catalogue, "a", "c")
    assert found(live, catalogue, X) == {"b": 0.99}
    put(catalogue, {"a": [at(0.7)]})
    assert found(live, catalogue, X) == {"b": 0.99, "a": 0.7}
    assert live.refresh() == catalogue.state().seq == 4
    assert len(live.index) == 2


def test_an_index_that_starts_late_or_twice_holds_the_same(catalogue: Catalogue, live: LiveIndex) -> None:
    put(catalogue, {"a": [at(0.9), at(0.2)], "b": [at(0.5)]})
    live.refresh()
    put(catalogue, {"a": [at(0.3)]}, title="new")
    delete(catalogue, "b")
    late = LiveIndex(catalogue, FlatIndex(DIM), ENCODER)
    assert found(late, catalogue, X) == found(live, catalogue, X) == found(live, catalogue, X) == {"a": 0.3}
    assert len(late.index) == len(live.index) == 1


def test_an_item_is_found_once_its_images_are_embedded(catalogue: Catalogue, live: LiveIndex) -> None:
    put(catalogue, {"a": [at(0.9)]}, embedded=False)
    assert found(live, catalogue, X) == {}
    with catalogue.change() as change:
        change.add_embeddings(ENCODER, {name_of(at(0.9)): at(0.9).tobytes()})
    assert found(live, catalogue, X) == {"a": 0.9}


def test_what_was_deleted_and_purged_while_the_worker_was_away_is_gone(catalogue: Catalogue, live: LiveIndex) -> None:
    put(catalogue, {"a": [at(0.9)], "b": [at(0.5)], "c": [at(0.1)]})
    assert len(found(live, catalogue, X)) == 3
    delete(catalogue, "a")
    put(catalogue, {"b": [at(0.6)]})
    with catalogue.change() as change:
        assert change.purge_tombstones(datetime.now(UTC) + timedelta(hours=1)) == 1
    assert found(live, catalogue, X) == {"b": 0.6, "c": 0.1}
    assert live.refresh() == catalogue.state().seq
    assert len(live.index) == 2


def test_a_purge_of_what_the_index_has_seen_changes_nothing(catalogue: Catalogue, live: LiveIndex) -> None:
    put(catalogue, {"a": [at(0.9)], "b": [at(0.5)]})
    delete(catalogue, "a")
    live.refresh()
    with catalogue.change() as change:
        change.purge_tombstones(datetime.now(UTC) + timedelta(hours=1))
    assert found(live, catalogue, X) == {"b": 0.5}


def test_an_item_appears_once_by_its_best_image(catalogue: Catalogue, live: LiveIndex) -> None:
    put(catalogue, {"a": [at(0.2), at(0.9), at(0.4)], "b": [at(0.8)], "c": [at(0.85), at(-0.5)]})
    assert list(found(live, catalogue, X).items()) == [("a", 0.9), ("c", 0.85), ("b", 0.8)]
    (row, _), *_ = live.nearest_items(X[None], 1)
    assert catalogue.hit_rows([row])[row][0].position == 1


def test_equal_scores_come_in_the_order_of_their_rows(catalogue: Catalogue, live: LiveIndex) -> None:
    for name in ("b", "a", "c"):
        put(catalogue, {name: [at(0.5)]})
    assert list(found(live, catalogue, X)) == ["b", "a", "c"]


def test_an_item_may_be_left_out_and_a_filter_lets_rows_through(catalogue: Catalogue, live: LiveIndex) -> None:
    put(catalogue, {f"i{number}": [at(number / 10)] for number in range(1, 10)})
    assert list(found(live, catalogue, X, k=2, without="i9")) == ["i8", "i7"]
    assert list(found(live, catalogue, X, k=2, without="nobody")) == ["i9", "i8"]
    rows = np.array([row for row, _ in live.nearest_items(X[None], 9)][3:6], dtype=np.int64)
    assert list(found(live, catalogue, X, allowed=rows)) == ["i6", "i5", "i4"]
    assert list(found(live, catalogue, X, allowed=rows, without="i5")) == ["i6", "i4"]
    assert found(live, catalogue, X, allowed=np.array([], dtype=np.int64)) == {}


def test_several_images_find_what_is_like_any_of_them(catalogue: Catalogue, live: LiveIndex) -> None:
    put(catalogue, {"like x": [at(0.9)], "is y": [Y], "both": [at(0.5), (X + Y) / np.float32(np.sqrt(2))]})
    assert found(live, catalogue, X, Y) == {"is y": 1.0, "like x": 0.9, "both": 0.7071}
    assert found(live, catalogue, Y, X, k=1) == {"is y": 1.0}


def test_an_item_with_300_images_does_not_hide_the_others(catalogue: Catalogue, live: LiveIndex) -> None:
    put(catalogue, {"many": [at(0.9 + number / 10_000) for number in range(300)], "a": [at(0.5)], "b": [at(0.4)]})
    assert found(live, catalogue, X, k=3) == {"many": 0.9299, "a": 0.5, "b": 0.4}
    assert found(live, catalogue, X, k=2, without="many") == {"a": 0.5, "b": 0.4}


def test_bug_an_item_with_300_images_does_not_hide_what_another_image_of_the_query_is_less_like(
    catalogue: Catalogue, live: LiveIndex
) -> None:
    """Y alone finds enough items, all of them worse than the one that X finds behind 300 images."""
    aside = np.eye(DIM, dtype=np.float32)
    poor = {f"poor{number}": [np.sqrt(0.96) * aside[3 + number] + 0.2 * Y] for number in range(4)}
    put(catalogue, {"many": [at(0.9 + number / 10_000) for number in range(300)], "good": [at(0.8)], **poor})
    assert list(found(live, catalogue, X, Y, k=2).items()) == [("many", 0.9299), ("good", 0.8)]
    assert list(found(live, catalogue, X, Y, k=1, without="many").items()) == [("good", 0.8)]


@pytest.mark.parametrize("seed", range(6))
def test_items_are_ranked_as_an_explicit_loop_ranks_them(catalogue: Catalogue, live: LiveIndex, seed: int) -> None:
    random = np.random.default_rng(seed)

    def unit(count: int) -> Vectors:
        vectors = random.standard_normal((count, DIM)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    items = {f"i{number}": unit(int(random.integers(1, 40))) for number in range(25)}
    put(catalogue, items)
    for k, queries, without in ((1, unit(1), None), (5, unit(3), None), (10, items["i3"], "i3"), (60, unit(2), "i0")):
        best = {name: float((vectors @ queries.T).max()) for name, vectors in items.items() if name != without}
        expected = sorted(best, key=lambda name: -best[name])[:k]
        hits = found(live, catalogue, *queries, k=k, without=without)
        assert list(hits) == expected
        np.testing.assert_allclose(list(hits.values()), [best[name] for name in expected], atol=1e-4)


def test_it_goes_on_after_the_database_was_away(catalogue: Catalogue, live: LiveIndex, engine: Engine) -> None:
    put(catalogue, {"a": [at(0.9)]})
    live.refresh()
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE catalogue_state RENAME TO away"))
    with pytest.raises(SQLAlchemyError):
        live.refresh()
    assert len(live) == 1
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE away RENAME TO catalogue_state"))
    delete(catalogue, "a")
    live.refresh()
    assert len(live) == 0


def test_threads_that_refresh_while_others_write_and_search_end_with_the_catalogue(
    catalogue: Catalogue, live: LiveIndex
) -> None:
    stopped = Event()

    def write() -> None:
        try:
            for number in range(20):
                put(catalogue, {f"i{number % 7}": [at(number / 30), at(-number / 40)], f"j{number}": [at(0.01)]})
                delete(catalogue, f"j{number - 3}")
        finally:
            stopped.set()

    def search() -> None:
        while not stopped.is_set():
            live.refresh()
            hits = live.nearest_items(np.stack([X, Y]), 5)
            assert [score for _, score in hits] == sorted((score for _, score in hits), reverse=True)

    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(write), pool.submit(search), pool.submit(search)]:
            future.result()
    expected = LiveIndex(catalogue, FlatIndex(DIM), ENCODER)
    assert found(live, catalogue, X, k=50) == found(expected, catalogue, X, k=50)
    assert len(live.index) == len(expected.index) > 10


def test_what_is_found_while_the_index_catches_up_with_a_purge_lacks_nothing_that_is_there(
    catalogue: Catalogue, live: LiveIndex, engine: Engine
) -> None:
    put(catalogue, {"a": [at(0.9)], "b": [at(0.5)], "c": [at(0.1)]})
    assert len(found(live, catalogue, X)) == 3
    delete(catalogue, "a")
    with catalogue.change() as change:
        assert change.purge_tombstones(datetime.now(UTC) + timedelta(hours=1)) == 1
    meanwhile: list[int] = []
    with before_statements(engine, lambda _: meanwhile.append(len(live.nearest_items(X[None], 9)))):
        live.refresh()
    assert len(meanwhile) > 1
    assert min(meanwhile) == 2
    assert found(live, catalogue, X) == {"b": 0.5, "c": 0.1}


def test_threads_that_refresh_together_share_one_reading_that_begins_after_they_asked(
    catalogue: Catalogue, live: LiveIndex, engine: Engine
) -> None:
    gate, readings = Event(), 0

    def wait_at_gate(statement: str) -> None:
        nonlocal readings
        if "purged_seq" in statement:
            readings += 1
            assert gate.wait(20)

    with ThreadPoolExecutor(16) as pool, before_statements(engine, wait_at_gate):
        first = pool.submit(live.refresh)
        wait_until(lambda: readings == 1, 20, "the first one reads")
        others = [pool.submit(live.refresh) for _ in range(15)]
        wait_until(lambda: all(future.running() for future in others), 20, "all have asked")
        gate.set()
        assert [future.result(20) for future in [first, *others]] == [0] * 16
    assert 2 <= readings <= 3  # a thread may have come to ask only after the second had begun


def test_every_search_of_many_threads_sees_what_was_committed_before_it_began(
    catalogue: Catalogue, live: LiveIndex
) -> None:
    threads, rounds = 8, 4
    together = Barrier(threads)

    def write_and_search(thread: int) -> None:
        for number in range(rounds):
            name = f"t{thread}r{number}"
            mine = at(0.01 + (thread * rounds + number) / 100)
            together.wait(30)
            put(catalogue, {name: [mine]})
            seq = catalogue.state().seq
            assert live.refresh() >= seq
            row, score = live.nearest_items(mine[None], 1)[0]
            assert score > 0.99999
            assert live.hits([row])[row][0].item_id == name
            delete(catalogue, name)
            live.refresh()
            assert row not in [other for other, _ in live.nearest_items(mine[None], 50)]

    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(write_and_search, thread) for thread in range(threads)]:
            future.result(100)
    assert len(live) == 0


def test_hits_tell_what_is_committed_and_are_read_once(catalogue: Catalogue, live: LiveIndex, engine: Engine) -> None:
    put(catalogue, {"a": [at(0.9)], "b": [at(0.5)]}, title="old")
    live.refresh()
    rows = [row for row, _ in live.nearest_items(X[None], 2)]
    assert [live.hits(rows)[row][0].title for row in rows] == ["old", "old"]
    statements: list[str] = []
    with before_statements(engine, statements.append):
        assert [live.hits(rows)[row][1] for row in rows] == [catalogue.hit_rows(rows)[row][1] for row in rows]
    assert len(statements) == 2  # what the catalogue itself was asked here
    with catalogue.change() as change:
        change.put([ItemChange("a", "new", {"colour": "red"}, None)])
    live.refresh()
    changed, same = (live.hits(rows)[row][0] for row in rows)
    assert (changed.title, changed.attributes, same.title) == ("new", {"colour": "red"}, "old")
    with catalogue.change() as change:
        change.put([ItemChange("a", "new", {"colour": "blue"}, None)])
    delete(catalogue, "b")
    live.refresh()
    assert live.hits(rows).keys() == {rows[0]}
    assert live.hits(rows)[rows[0]][0].attributes == {"colour": "blue"}
