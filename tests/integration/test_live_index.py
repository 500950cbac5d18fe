"""The index in step with the catalogue, with FAISS: threads, failures, what is read how often.

What it finds is in test_item_indexes.py.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Barrier, Event

import numpy as np
import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import SQLAlchemyError

from shared.catalogue import Catalogue
from shared.catalogue_change import ItemChange
from tests.faiss_kinds import DIM
from tests.item_index_kinds import ENCODER, X, Y, at, delete, found, put
from tests.stack import wait_until
from worker.index.flat_index import FlatIndex
from worker.live_index import LiveIndex


@pytest.fixture
def live(catalogue: Catalogue) -> LiveIndex:
    return LiveIndex(catalogue, FlatIndex(DIM), ENCODER)


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
    assert found(live, catalogue, X) == pytest.approx({"b": 0.5, "c": 0.1})


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
