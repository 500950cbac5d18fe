"""One call for all who ask at the same time, each seeing what was so when it asked."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock

import pytest

from tests.stack import wait_until
from worker.shared_call import SharedCall


class Reading:
    """Reads a number that others write; each reading waits for leave."""

    def __init__(self) -> None:
        self.value = 0
        self.runs = 0
        self.gate = Event()

    def __call__(self) -> int:
        self.runs += 1
        value = self.value
        assert self.gate.wait(20)
        if value < 0:
            raise ValueError(f"{value} is below zero")
        return value


def test_who_asks_while_a_run_goes_on_shares_the_next_one_which_sees_what_was_written_before() -> None:
    read = Reading()
    shared = SharedCall(read)
    with ThreadPoolExecutor(16) as pool:
        first = pool.submit(shared)
        wait_until(lambda: read.runs == 1, 20, "the first one reads")
        read.value = 1
        later = [pool.submit(shared) for _ in range(15)]
        wait_until(lambda: all(future.running() for future in later), 20, "all have asked")
        wait_until(lambda: shared._next is not None, 20, "the next run is asked for")
        assert not any(future.done() for future in later)
        read.gate.set()
        assert first.result(20) == 0
        assert {future.result(20) for future in later} == {1}
    assert read.runs <= 3  # a thread may have come to its question only after the second had begun


def test_a_failure_is_told_to_all_whom_the_run_served_and_to_no_one_after() -> None:
    read = Reading()
    shared = SharedCall(read)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(shared)
        wait_until(lambda: read.runs == 1, 20, "the first one reads")
        read.value = -1
        later = [pool.submit(shared) for _ in range(3)]
        wait_until(lambda: shared._next is not None, 20, "the next run is asked for")
        read.gate.set()
        assert first.result(20) == 0
        for future in later:
            with pytest.raises(ValueError, match="-1 is below zero"):
                future.result(20)
    read.value = 7
    assert shared() == 7


def test_nobody_gets_an_answer_that_is_older_than_the_question() -> None:
    written, lock, stopped = 0, Lock(), Event()
    runs = 0

    def read() -> int:
        nonlocal runs
        runs += 1
        return written

    shared = SharedCall(read)

    def ask() -> int:
        asked = 0
        while not stopped.is_set():
            before = written
            assert shared() >= before
            asked += 1
        return asked

    def write() -> None:
        nonlocal written
        for _ in range(20_000):
            with lock:
                written += 1
        stopped.set()

    with ThreadPoolExecutor(9) as pool:
        asking = [pool.submit(ask) for _ in range(8)]
        pool.submit(write).result(60)
        asked = sum(future.result(60) for future in asking)
    assert 0 < runs <= asked
