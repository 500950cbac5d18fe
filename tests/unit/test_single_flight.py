"""Single flight, with real threads."""

from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier, Event, Semaphore

import pytest

from tests.stack import wait_until
from worker.single_flight import SingleFlight

SECONDS = 20


def waited(flight: Future[int]) -> int:
    return flight.result(SECONDS)


class Maker:
    """Makes a number when the test lets it, and counts."""

    def __init__(self) -> None:
        self.calls = 0
        self.passes = Semaphore(0)

    def __call__(self) -> int:
        self.calls += 1
        assert self.passes.acquire(timeout=SECONDS)
        return 7


def test_what_a_hundred_threads_want_at_once_is_made_once() -> None:
    flights, make, together = SingleFlight[str, int](remembered=1), Maker(), Barrier(100)

    def ask(_: int) -> tuple[int, bool]:
        together.wait(SECONDS)
        return flights.get("key", make, waited)

    with ThreadPoolExecutor(100) as pool:
        answers = [pool.submit(ask, number) for number in range(100)]
        wait_until(lambda: make.calls > 0, SECONDS, "the first one begins")
        make.passes.release(100)
        got = [answer.result(SECONDS) for answer in answers]
    assert {value for value, _ in got} == {7}
    assert sum(made for _, made in got) == 1
    assert make.calls == 1


def test_different_keys_do_not_wait_for_each_other() -> None:
    flights, slow = SingleFlight[str, int](remembered=1), Maker()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(flights.get, "slow", slow, waited)
        wait_until(lambda: slow.calls == 1, SECONDS, "the slow one begins")
        assert flights.get("fast", lambda: 1, waited) == (1, True)
        slow.passes.release()
        assert first.result(SECONDS) == (7, True)


def test_who_comes_late_gets_what_is_remembered_and_only_the_newest_are() -> None:
    flights = SingleFlight[int, int](remembered=2)
    for key in (1, 2, 3):
        assert flights.get(key, lambda: 10, waited) == (10, True)
    assert flights.get(3, lambda: 20, waited) == (10, False)
    assert flights.get(2, lambda: 20, waited) == (10, False)
    assert flights.get(1, lambda: 20, waited) == (20, True)


def test_nothing_is_remembered_where_that_is_not_wanted() -> None:
    flights = SingleFlight[int, int](remembered=0)
    assert flights.get(1, lambda: 10, waited) == (10, True)
    assert flights.get(1, lambda: 20, waited) == (20, True)


def test_when_the_maker_gives_up_another_takes_over() -> None:
    flights, begun, gives_up = SingleFlight[str, int](remembered=0), Event(), Event()

    def give_up() -> int:
        begun.set()
        assert gives_up.wait(SECONDS)
        raise TimeoutError("the maker's own deadline")

    entered = Event()

    def wait(flight: Future[int]) -> int:
        entered.set()
        return flight.result(SECONDS)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(flights.get, "key", give_up, waited)
        assert begun.wait(SECONDS)
        second = pool.submit(flights.get, "key", lambda: 7, wait)
        assert entered.wait(SECONDS)
        gives_up.set()
        with pytest.raises(TimeoutError, match="the maker's own deadline"):
            first.result(SECONDS)
        assert second.result(SECONDS) == (7, True)


def test_who_gives_up_waiting_leaves_the_others_their_value() -> None:
    flights, make = SingleFlight[str, int](remembered=0), Maker()

    def give_up(flight: Future[int]) -> int:
        raise TimeoutError("enough")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(flights.get, "key", make, waited)
        wait_until(lambda: make.calls == 1, SECONDS, "the maker begins")
        with pytest.raises(TimeoutError, match="enough"):
            flights.get("key", make, give_up)
        make.passes.release()
        assert first.result(SECONDS) == (7, True)
    assert make.calls == 1
