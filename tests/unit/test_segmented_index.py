"""Base, delta and tombstones together: whatever was done, they answer as one exact index."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.test_flat_index import BruteForce, assert_equal, ids, mapped, unit
from worker.index.flat_index import FlatIndex
from worker.index.segmented_index import SegmentedIndex
from worker.index.vector_index import Rows

DIM = 8
VECTORS = unit(400)


def flat(rows: Rows) -> FlatIndex:
    index = FlatIndex(DIM)
    index.add(rows, VECTORS[rows])
    return index


def segmented(base: Rows) -> SegmentedIndex:
    return SegmentedIndex(mapped(base, VECTORS[base]), FlatIndex(DIM))


def assert_as_brute_force(index: SegmentedIndex, rows: Rows) -> None:
    oracle = BruteForce(DIM)
    oracle.add(rows, VECTORS[rows])
    assert sorted(index.rows.tolist()) == sorted(rows.tolist())
    assert len(index) == len(rows)
    queries = unit(5, seed=9)
    for k in (1, 10, len(rows) + 3):
        assert_equal(index.search(queries, k), oracle.search(queries, k))
        for allowed in (np.arange(0, 400, 3, dtype=np.int64), ids(), np.arange(30, 60, dtype=np.int64)):
            assert_equal(index.search(queries, k, allowed), oracle.search(queries, k, allowed))


@pytest.mark.parametrize("gone", [0, 1, 90, 299, 300])
def test_removed_rows_of_the_base_are_not_found_however_many_they_are(gone: int) -> None:
    rows = np.random.default_rng(gone).permutation(300).astype(np.int64)
    index = segmented(rows)
    assert index.remove(rows[:gone]) == gone
    assert index.remove(rows[:gone]) == 0
    assert_as_brute_force(index, rows[gone:])
    assert index.changes == gone
    index.add(np.arange(350, 400), VECTORS[350:400])
    assert_as_brute_force(index, np.concatenate([rows[gone:], np.arange(350, 400)]))


def test_the_best_rows_may_all_be_gone() -> None:
    index, query = segmented(np.arange(300, dtype=np.int64)), unit(1, seed=9)
    best = index.search(query, 250).rows[0]
    index.remove(best[:200])
    assert index.search(query, 50).rows[0].tolist() == best[200:].tolist()


def test_a_row_of_the_base_may_go_and_come_back_with_another_vector() -> None:
    index, other = segmented(ids(1, 2, 3)), unit(1, seed=77)
    index.remove(ids(2))
    index.add(ids(2), other)
    assert len(index) == 3
    assert index.search(other, 1).rows.tolist() == index.search(other, 1, ids(1, 2)).rows.tolist() == [[2]]
    np.testing.assert_allclose(index.vectors(ids(2))[1], other)
    assert index.remove(ids(2)) == 1
    assert sorted(index.rows.tolist()) == [1, 3]


@pytest.mark.parametrize("base", [range(0, 300), range(0, 100), range(250, 400), range(0)], ids=str)
def test_another_base_changes_no_answer_whatever_part_of_the_rows_it_holds(base: range) -> None:
    index = segmented(np.arange(200, dtype=np.int64))
    index.add(np.arange(200, 300), VECTORS[200:300])
    index.remove(np.arange(50, 70))
    index.remove(np.arange(290, 300))
    rows = np.setdiff1d(np.arange(290), np.arange(50, 70))
    assert_as_brute_force(index, rows)
    new = np.array(base, dtype=np.int64)
    index.rebase(flat(new), FlatIndex(DIM))
    assert_as_brute_force(index, rows)
    assert index.changes == len(np.setdiff1d(rows, new)) + len(np.setdiff1d(new, rows))
    index.restart(flat(new), FlatIndex(DIM))
    assert_as_brute_force(index, new)


Steps = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "rebase"]), st.sets(st.integers(0, 39), max_size=20)), max_size=8
)


@given(steps=Steps, k=st.integers(1, 45))
@settings(max_examples=60, deadline=None)
def test_any_changes_in_any_order_leave_what_brute_force_has(steps: list[tuple[str, set[int]]], k: int) -> None:
    index, present = SegmentedIndex(FlatIndex(DIM), FlatIndex(DIM)), set[int]()
    for step, chosen in steps:
        if step == "add":
            new = ids(*sorted(chosen - present))
            index.add(new, VECTORS[new])
            present |= chosen
        elif step == "remove":
            assert index.remove(ids(*sorted(chosen))) == len(chosen & present)
            present -= chosen
        else:
            index.rebase(flat(ids(*sorted(chosen))), FlatIndex(DIM))
    oracle, rows, queries = BruteForce(DIM), ids(*sorted(present)), unit(5, seed=9)
    oracle.add(rows, VECTORS[rows])
    assert_equal(index.search(queries, k), oracle.search(queries, k))
    assert_equal(index.search(queries, k, ids(*range(0, 40, 2))), oracle.search(queries, k, ids(*range(0, 40, 2))))
