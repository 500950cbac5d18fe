"""Things that kill the worker: child processes that really die over them, and a note in a real store."""

import json
import os
from pathlib import Path

import pytest

from shared.store import Store
from worker.one_by_one import OneByOne

THINGS = ("a", "b", "c")
KEY = "job/0.alone.json"
LOST = 9  # exit status of a child that died over a thing


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def run(store: Store, lethal: str, max_attempts: int = 3) -> tuple[int, bytes]:
    """Do the things in a child process; returns how it ended, and what it told: news as !, and what it did."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with OneByOne(store, KEY, max_attempts) as alone:
                os.write(writes, b"!" if alone.is_news else b".")
                for thing in THINGS:
                    if alone.may_begin(thing):
                        if thing in lethal:
                            os._exit(LOST)
                        os.write(writes, thing.encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writes)
    with os.fdopen(reads, "rb") as told:
        said = told.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def test_each_death_is_news_once_and_the_thing_to_blame_is_passed_over(store: Store) -> None:
    ends = [run(store, "b") for _ in range(4)]
    assert ends == [(LOST, b"!a"), (LOST, b"!a"), (0, b"!ac"), (0, b".ac")]


def test_several_things_to_blame_are_found_one_after_the_other(store: Store) -> None:
    assert [run(store, "ac", max_attempts=2) for _ in range(3)] == [(LOST, b"!"), (LOST, b"!b"), (0, b"!b")]


def test_deaths_over_too_many_things_are_no_news_any_more(store: Store) -> None:
    with store.writing(KEY) as file:
        file.write(json.dumps({"deaths": {str(thing): 2 for thing in range(14)}, "in_hand": "a"}).encode())
    assert [run(store, "abc")[1] for _ in range(3)] == [b"!", b"!", b"."]


def test_what_raises_is_no_death(store: Store) -> None:
    for _ in range(4):
        with pytest.raises(ConnectionError), OneByOne(store, KEY, 3) as alone:
            assert alone.may_begin("a")
            raise ConnectionError
    with OneByOne(store, KEY, 3) as alone:
        assert not alone.is_news
        assert alone.may_begin("a")


def test_the_note_of_a_job_that_was_ended_meanwhile_does_not_come_back(store: Store) -> None:
    with OneByOne(store, KEY, 3) as alone:
        assert alone.may_begin("a")
        store.remove_tree("job")
    assert not store.exists(KEY)
