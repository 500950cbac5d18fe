"""Rows that kill the worker: child processes that really die over them, and a note in a real store."""

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from shared.catalogue_change import ItemChange
from shared.errors import ImageMissing, WorkerLost
from shared.store import Store
from worker.imports.intake import Prepared
from worker.imports.rows import CatalogueRow
from worker.imports.rows_alone import prepare_alone

ROWS = [CatalogueRow(line, f"i{line}", "", ("a.jpg",), {}) for line in range(2, 8)]
LOST = 9  # exit status of a child that died over a row

Prepare = Callable[[Sequence[CatalogueRow]], Prepared]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def preparing(*lethal: int, broken: int = 0) -> Prepare:
    """Return what prepares rows, dies over those of some lines, and finds one broken."""

    def prepare(rows: Sequence[CatalogueRow]) -> Prepared:
        (row,) = rows
        if row.line in lethal:
            os._exit(LOST)
        if row.line == broken:
            return Prepared(rejected=[(row, ImageMissing("No image."))])
        return Prepared(items=[(row, ItemChange(row.item_id, "", {}, []))], vectors={row.item_id: b"vector"})

    return prepare


def run(store: Store, prepare: Prepare, max_attempts: int = 3) -> int:
    """Prepare the rows in a child process, as a bulk worker does; returns how it ended."""
    child = os.fork()
    if child == 0:
        try:
            prepare_alone(store, "job", 0, max_attempts, ROWS, prepare)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def lost_lines(prepared: Prepared) -> list[int]:
    return [row.line for row, error in prepared.rejected if isinstance(error, WorkerLost)]


def test_a_row_over_which_the_worker_died_as_often_as_it_may_is_left_out_and_no_other(store: Store) -> None:
    prepare = preparing(4, broken=6)
    assert [run(store, prepare) for _ in range(3)] == [LOST, LOST, 0], "once with all others, twice alone"
    prepared = prepare_alone(store, "job", 0, 3, ROWS, prepare)
    assert lost_lines(prepared) == [4]
    assert "3 times in all" in prepared.rejected[0][1].detail
    assert [row.line for row, _ in prepared.rejected] == [4, 6]
    assert [row.line for row, _ in prepared.items] == [2, 3, 5, 7]
    assert set(prepared.vectors) == {"i2", "i3", "i5", "i7"}


def test_several_such_rows_are_left_out_one_after_the_other(store: Store) -> None:
    prepare = preparing(2, 7)
    assert [run(store, prepare) for _ in range(5)] == [LOST, LOST, LOST, LOST, 0]
    assert lost_lines(prepare_alone(store, "job", 0, 3, ROWS, prepare)) == [2, 7]


@pytest.mark.parametrize("max_attempts", [1, 2])
def test_a_row_is_tried_alone_once_before_it_is_blamed(store: Store, max_attempts: int) -> None:
    prepare = preparing(5)
    assert [run(store, prepare, max_attempts) for _ in range(2)] == [LOST, 0]
    assert lost_lines(prepare_alone(store, "job", 0, max_attempts, ROWS, prepare)) == [5]


def test_a_worker_that_was_killed_once_for_another_reason_blames_no_row(store: Store) -> None:
    def killed_from_outside(rows: Sequence[CatalogueRow]) -> Prepared:
        if rows[0].line == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return preparing()(rows)

    assert run(store, killed_from_outside) == -signal.SIGKILL
    prepared = prepare_alone(store, "job", 0, 3, ROWS, preparing())
    assert (len(prepared.items), prepared.rejected) == (len(ROWS), [])


def test_a_failure_that_is_no_death_blames_no_row(store: Store) -> None:
    def fail(rows: Sequence[CatalogueRow]) -> Prepared:
        raise ConnectionError("the database is away")

    for _ in range(5):
        with pytest.raises(ConnectionError):
            prepare_alone(store, "job", 0, 3, ROWS, fail)
    assert prepare_alone(store, "job", 0, 3, ROWS, preparing()).rejected == []
