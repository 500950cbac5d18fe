"""The micro-batcher, with real threads."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from threading import Event, Semaphore, get_ident
from threading import enumerate as enumerate_threads

import pytest

from tests.stack import wait_until
from worker.batcher import MicroBatcher

SECONDS = 20


class Gate:
    """Doubles numbers, batch by batch, as the test lets it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self.passes = Semaphore(0)

    def run(self, items: Sequence[int]) -> list[int]:
        self.threads.add(get_ident())
        self.batches.append(list(items))
        assert self.passes.acquire(timeout=SECONDS)
        if 13 in items:
            raise ValueError("13 is broken")
        return [2 * item for item in items]


@pytest.fixture
def gate() -> Gate:
    return Gate()


Maker = Callable[..., MicroBatcher[int, int]]


@pytest.fixture
def batcher(gate: Gate) -> Iterator[Maker]:
    made: list[MicroBatcher[int, int]] = []

    def make(
        max_items: int = 4, max_waiting: int = 100, name: str = "doubler", threads: int = 1
    ) -> MicroBatcher[int, int]:
        made.append(MicroBatcher(gate.run, max_items=max_items, max_waiting=max_waiting, name=name, threads=threads))
        return made[-1]

    yield make
    gate.passes.release(100)
    for each in made:
        each.close()


def started(gate: Gate, batches: int) -> None:
    wait_until(lambda: len(gate.batches) == batches, SECONDS, f"batch {batches} begins")


def test_a_lone_item_runs_at_once_and_alone(gate: Gate, batcher: Maker) -> None:
    gate.passes.release()
    assert batcher().submit(21).result(SECONDS) == 42
    assert gate.batches == [[21]]


def test_what_comes_while_a_batch_runs_is_the_next_batch(gate: Gate, batcher: Maker) -> None:
    doubler = batcher(max_items=4)
    first = doubler.submit(0)
    started(gate, 1)
    others = [doubler.submit(number) for number in range(1, 7)]
    gate.passes.release(3)
    assert [future.result(SECONDS) for future in [first, *others]] == [0, 2, 4, 6, 8, 10, 12]
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_many_threads_get_each_its_own_output_from_one_thread(gate: Gate, batcher: Maker) -> None:
    gate.passes.release(500)
    doubler = batcher(max_items=8, max_waiting=3)
    with ThreadPoolExecutor(16) as pool:
        outputs = list(pool.map(lambda number: doubler.submit(number).result(SECONDS), range(100, 400)))
    assert outputs == [2 * number for number in range(100, 400)]
    assert len(gate.threads) == 1
    assert get_ident() not in gate.threads


def test_several_threads_run_batches_side_by_side_and_what_comes_then_waits_for_the_first(
    gate: Gate, batcher: Maker
) -> None:
    doubler = batcher(threads=2)
    running = []
    for number in (0, 1):
        running.append(doubler.submit(number))
        started(gate, number + 1)
    waiting = [doubler.submit(number) for number in (2, 3)]
    assert gate.batches == [[0], [1]]
    gate.passes.release(3)
    assert [future.result(SECONDS) for future in (*running, *waiting)] == [0, 2, 4, 6]
    assert gate.batches == [[0], [1], [2, 3]]
    assert len(gate.threads) == 2


def test_a_broken_item_fails_alone(gate: Gate, batcher: Maker) -> None:
    doubler = batcher()
    first = doubler.submit(0)
    started(gate, 1)
    futures = {number: doubler.submit(number) for number in (12, 13, 14)}
    gate.passes.release(5)
    assert first.result(SECONDS) == 0
    assert futures[12].result(SECONDS) == 24
    assert futures[14].result(SECONDS) == 28
    with pytest.raises(ValueError, match="13 is broken"):
        futures[13].result(SECONDS)
    gate.passes.release()
    assert doubler.submit(15).result(SECONDS) == 30, "the thread goes on"


def test_a_batch_whose_outputs_are_too_few_fails() -> None:
    mute: MicroBatcher[int, int] = MicroBatcher(lambda items: [], max_items=4, max_waiting=4, name="mute")
    with pytest.raises(RuntimeError, match="mute got 0 outputs for 1 items"):
        mute.submit(1).result(SECONDS)
    mute.close()


def test_a_cancelled_item_is_never_run(gate: Gate, batcher: Maker) -> None:
    doubler = batcher()
    first = doubler.submit(0)
    started(gate, 1)
    given_up, wanted, alone = doubler.submit(1), doubler.submit(2), doubler.submit(3)
    assert given_up.cancel()
    assert not first.cancel(), "it runs already"
    gate.passes.release(2)
    assert [first.result(SECONDS), wanted.result(SECONDS), alone.result(SECONDS)] == [0, 4, 6]
    with pytest.raises(CancelledError):
        given_up.result(SECONDS)
    assert gate.batches == [[0], [2, 3]]


def test_a_batch_of_cancelled_items_alone_is_no_batch(gate: Gate, batcher: Maker) -> None:
    doubler = batcher()
    doubler.submit(0)
    started(gate, 1)
    assert all(doubler.submit(number).cancel() for number in range(1, 9))
    last = doubler.submit(9)
    gate.passes.release(2)
    assert last.result(SECONDS) == 18
    assert gate.batches == [[0], [9]]


def test_submitting_blocks_while_too_many_wait(gate: Gate, batcher: Maker) -> None:
    doubler, entered = batcher(max_items=1, max_waiting=2), Event()
    doubler.submit(0)
    started(gate, 1)
    for number in (1, 2):
        doubler.submit(number)

    def submit_third() -> Future[int]:
        entered.set()
        return doubler.submit(3)

    with ThreadPoolExecutor(1) as pool:
        third = pool.submit(submit_third)
        assert entered.wait(SECONDS)
        with pytest.raises(TimeoutError):
            third.result(0.2)
        gate.passes.release()
        assert third.result(SECONDS) is not None
        gate.passes.release(3)
        assert third.result().result(SECONDS) == 6


def test_a_closed_batcher_finishes_what_waits_and_takes_nothing_more(gate: Gate, batcher: Maker) -> None:
    doubler = batcher(max_items=1, max_waiting=1, name="ending")
    first = doubler.submit(0)
    started(gate, 1)
    second = doubler.submit(1)
    with ThreadPoolExecutor(1) as pool:
        blocked = pool.submit(doubler.submit, 2)
        doubler.close()
        with pytest.raises(RuntimeError, match="ending was closed"):
            blocked.result(SECONDS)
    with pytest.raises(RuntimeError, match="ending was closed"):
        doubler.submit(3)
    gate.passes.release(2)
    assert (first.result(SECONDS), second.result(SECONDS)) == (0, 2)

    def has_ended() -> bool:
        return not any(thread.name.startswith("ending") for thread in enumerate_threads())

    wait_until(has_ended, SECONDS, "the thread ends")


@pytest.mark.parametrize("bounds", [{"max_items": 0}, {"max_waiting": 0}, {"threads": 0}])
def test_bounds_that_would_never_let_anything_pass_are_refused(batcher: Maker, bounds: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        batcher(**bounds)
