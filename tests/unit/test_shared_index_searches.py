"""Searches of several threads as one: same answers, fewer searches, nobody waits in vain."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Lock
from typing import Any

import numpy as np
import pytest

from tests.stack import wait_until
from worker.index.flat_index import FlatIndex
from worker.index.shared_searches import AT_ONCE, SharedSearches
from worker.index.vector_index import Neighbours, Rows, Vectors

DIM, ROWS = 64, 2000


def unit(count: int, seed: int = 0) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Gated(FlatIndex):
    """An index whose searches wait for leave, and are counted by their number of queries."""

    def __init__(self) -> None:
        super().__init__(DIM)
        self.add(np.arange(ROWS, dtype=np.int64), unit(ROWS))
        self.sizes: list[int] = []
        self.failures = 0
        self.gate = Event()

    def search(self, queries: Vectors, k: int, allowed: Rows | None = None) -> Neighbours:
        self.sizes.append(len(queries))
        assert self.gate.wait(20)
        if self.failures:
            self.failures -= 1
            raise MemoryError("no memory for so many")
        return super().search(queries, k, allowed)


@pytest.fixture
def index() -> Gated:
    return Gated()


def expected(query: Vectors, k: int) -> list[int]:
    scores = (unit(ROWS) @ query.T)[:, 0]
    return np.lexsort((np.arange(ROWS), -scores))[:k].tolist()


def test_what_comes_while_a_search_runs_is_searched_together_with_the_answers_of_each_alone(index: Gated) -> None:
    searches, queries = SharedSearches(index), unit(AT_ONCE + 8, seed=1)
    with ThreadPoolExecutor(len(queries)) as pool:
        asked = [pool.submit(searches.search, queries[:1], 3)]
        wait_until(lambda: index.sizes == [1], 20, "the first one searches at once")
        asked += [pool.submit(searches.search, queries[n : n + 1], n + 1) for n in range(1, len(queries))]
        wait_until(lambda: len(searches._waiting) == len(queries) - 1, 20, "the others wait")
        index.gate.set()
        answers = [future.result(20) for future in asked]
    assert index.sizes == [1, AT_ONCE, 7]
    for number, (query, answer) in enumerate(zip(queries, answers, strict=True)):
        k = number + 1 if number else 3
        assert answer.rows.tolist() == [expected(query[None], k)]
        np.testing.assert_allclose(answer.scores[0], unit(ROWS)[answer.rows[0]] @ query, atol=1e-6)
    assert searches.search(queries[:1], 1).rows.shape == (1, 1)  # it is free again


def test_filters_and_several_queries_run_alone(index: Gated) -> None:
    index.gate.set()
    searches, queries = SharedSearches(index), unit(3, seed=1)
    allowed = np.arange(5, dtype=np.int64)
    assert set(searches.search(queries[:1], 9, allowed).rows[0].tolist()) == {0, 1, 2, 3, 4}
    assert searches.search(queries, 2).rows.tolist() == [expected(query[None], 2) for query in queries]
    assert searches.search(queries[:0], 2).rows.shape == (0, 0)


def test_a_query_that_is_refused_fails_alone(index: Gated) -> None:
    index.gate.set()
    searches = SharedSearches(index)
    refused: list[tuple[Any, int]] = [(unit(1) * 2, 3), (unit(1).astype(np.float64), 3), (unit(1), 0)]
    for query, k in refused:
        with pytest.raises(ValueError, match=r"norm|float32|k must"):
            searches.search(query, k)
    assert index.sizes == []
    assert searches.search(unit(1), 1).rows.tolist() == [[0]]


def test_when_searching_together_fails_each_one_searches_alone_and_who_led_is_told(index: Gated) -> None:
    index.failures = 1
    searches, queries = SharedSearches(index), unit(4, seed=1)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(searches.search, queries[:1], 3)
        wait_until(lambda: index.sizes == [1], 20, "the first one searches")
        index.failures = 2  # its own, and that of the group after it
        others = [pool.submit(searches.search, queries[n : n + 1], 3) for n in (1, 2, 3)]
        wait_until(lambda: len(searches._waiting) == 3, 20, "the others wait")
        index.gate.set()
        with pytest.raises(MemoryError):
            first.result(20)
        failed = [future.exception(20) for future in others]
    assert sorted(error is None for error in failed) == [False, True, True]
    assert searches.search(queries[:1], 1).rows.shape == (1, 1)


def test_many_threads_get_each_its_own_answer_and_searches_are_fewer_than_queries() -> None:
    index = Gated()
    index.gate.set()
    searches, threads, rounds = SharedSearches(index), 12, 25
    together, counted, wrong = Barrier(threads), Lock(), []

    def search(thread: int) -> None:
        for number in range(rounds):
            query, k = unit(1, seed=100 + thread * rounds + number), 1 + (thread + number) % 15
            together.wait(20)
            found = searches.search(query, k).rows[0].tolist()
            if found != expected(query, k):
                with counted:
                    wrong.append((thread, number))

    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(search, thread) for thread in range(threads)]:
            future.result(60)
    assert wrong == []
    assert sum(index.sizes) == threads * rounds
    assert len(index.sizes) < threads * rounds
