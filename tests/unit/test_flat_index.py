"""The contract of VectorIndex, kept by every implementation; numpy's brute force is one, and the oracle of all."""

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.index import Neighbours, VectorIndex
from worker.index.flat_index import MATRIX_PRODUCT_QUERIES, FlatIndex
from worker.index.segmented_index import SegmentedIndex
from worker.index.vector_index import Rows, Vectors, check_vectors

DIM = 8


class BruteForce:
    """All products, sorted."""

    is_exact = True

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._vectors: dict[int, Vectors] = {}

    @property
    def rows(self) -> Rows:
        return np.array(list(self._vectors), dtype=np.int64)

    def __len__(self) -> int:
        return len(self._vectors)

    def add(self, rows: Rows, vectors: Vectors) -> None:
        check_vectors(vectors, self.dim)
        if len(rows) != len(vectors):
            raise ValueError("as many ids as vectors")
        self._vectors = {**self._vectors, **dict(zip(rows.tolist(), vectors.copy(), strict=True))}

    def remove(self, rows: Rows) -> int:
        gone = set(rows.tolist()) & self._vectors.keys()
        self._vectors = {row: vector for row, vector in self._vectors.items() if row not in gone}
        return len(gone)

    def vectors(self, rows: Rows) -> tuple[Rows, Vectors]:
        known = sorted(set(rows.tolist()) & self._vectors.keys())
        found = np.array([self._vectors[row] for row in known], dtype=np.float32).reshape(-1, self.dim)
        return np.array(known, dtype=np.int64), found

    def search(self, queries: Vectors, k: int, allowed: Rows | None = None) -> Neighbours:
        check_vectors(queries, self.dim)
        if k < 1:
            raise ValueError("k must be at least 1")
        known = self._vectors
        chosen = sorted(known if allowed is None else known.keys() & set(allowed.tolist()))
        rows = np.array(chosen, dtype=np.int64)
        matrix = np.array([known[row] for row in chosen], dtype=np.float32).reshape(-1, self.dim)
        scores = np.clip(queries @ matrix.T, -1, 1)  # (n, rows)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return Neighbours(np.take_along_axis(scores, order, axis=1), rows[order])


class Segmented(SegmentedIndex):
    """All rows in the delta."""

    def __init__(self, dim: int) -> None:
        super().__init__(FlatIndex(dim), FlatIndex(dim))


class Rebased(Segmented):
    """All rows in a base that is mapped from a file, whose removed rows are tombstones; half of the adding is delta."""

    def add(self, rows: Rows, vectors: Vectors) -> None:
        half = len(rows) // 2
        super().add(rows[:half], vectors[:half])
        if len(rows) == len(vectors):
            self.rebase(mapped(*self.vectors(self.rows)), FlatIndex(self.dim))
        super().add(rows[half:], vectors[half:])


def mapped(rows: Rows, vectors: Vectors) -> FlatIndex:
    index = FlatIndex(vectors.shape[1])
    index.add(rows, vectors)
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder) / "index")
        return FlatIndex.mapped(Path(folder) / "index", index.rows)


KINDS: list[Callable[[int], VectorIndex]] = [FlatIndex, Segmented, Rebased, BruteForce]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def create(request: pytest.FixtureRequest) -> Callable[[int], VectorIndex]:
    kind: Callable[[int], VectorIndex] = request.param
    return kind


def unit(count: int, seed: int = 0, dim: int = DIM) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def ids(*numbers: int) -> Rows:
    return np.array(numbers, dtype=np.int64)


def filled(index: VectorIndex, count: int = 50, first: int = 1000) -> VectorIndex:
    index.add(np.arange(first, first + count, dtype=np.int64), unit(count))
    return index


def assert_equal(found: Neighbours, expected: Neighbours) -> None:
    assert [found.rows.dtype, found.scores.dtype] == [np.dtype(np.int64), np.dtype(np.float32)]
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)


def test_it_finds_what_brute_force_finds(create: Callable[[int], VectorIndex]) -> None:
    index, oracle, queries = filled(create(DIM), 300), filled(BruteForce(DIM), 300), unit(7, seed=1)
    for k in (1, 10, 300):
        assert_equal(index.search(queries, k), oracle.search(queries, k))
    assert index.dim == DIM
    found = index.search(queries, 20)
    assert (np.diff(found.scores, axis=1) <= 0).all()
    assert found.scores.max() <= 1.0


@given(
    count=st.integers(0, 12),
    k=st.integers(1, 15),
    allowed=st.none() | st.lists(st.integers(0, 20), max_size=12),
    removed=st.lists(st.integers(0, 20), max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_it_finds_what_brute_force_finds_after_any_change(
    count: int, k: int, allowed: list[int] | None, removed: list[int]
) -> None:
    oracle, filter_ids = BruteForce(DIM), None if allowed is None else ids(*allowed)
    oracle.add(np.arange(count, dtype=np.int64), unit(count))
    gone = oracle.remove(ids(*removed))
    for index in (FlatIndex(DIM), Segmented(DIM), Rebased(DIM)):
        index.add(np.arange(count, dtype=np.int64), unit(count))
        assert index.remove(ids(*set(removed))) == gone
        assert len(index) == len(oracle)
        assert sorted(index.rows.tolist()) == sorted(oracle.rows.tolist())
        assert_equal(index.search(unit(3, seed=2), k, filter_ids), oracle.search(unit(3, seed=2), k, filter_ids))


def test_k_may_exceed_the_number_of_rows(create: Callable[[int], VectorIndex]) -> None:
    found = filled(create(DIM), 3).search(unit(2, seed=1), 10)
    assert found.rows.shape == found.scores.shape == (2, 3)
    assert (found.rows >= 0).all()


def test_an_empty_index_finds_nothing(create: Callable[[int], VectorIndex]) -> None:
    for allowed in (None, ids(), ids(1, 2)):
        found = create(DIM).search(unit(2), 5, allowed)
        assert found.rows.shape == found.scores.shape == (2, 0)
    assert create(DIM).remove(ids(1)) == 0


def test_no_queries_get_no_answers(create: Callable[[int], VectorIndex]) -> None:
    index = filled(create(DIM), 3)
    assert len(index.search(unit(0), 2).rows) == len(index.search(unit(0), 2, ids(1001)).scores) == 0


def test_equal_vectors_are_all_found_with_equal_scores(create: Callable[[int], VectorIndex]) -> None:
    index, same = create(DIM), unit(1)
    index.add(ids(3, 1, 2), np.repeat(same, 3, axis=0))
    index.add(ids(9), -same)
    found = index.search(same, 3)
    assert set(found.rows[0].tolist()) == {1, 2, 3}
    assert len(set(found.scores[0].tolist())) == 1
    assert found.scores[0, 0] == pytest.approx(1.0, abs=1e-6)
    assert index.search(same, 4).scores[0, 3] == pytest.approx(-1.0, abs=1e-6)


def test_queries_and_added_vectors_stay_the_callers_own(create: Callable[[int], VectorIndex]) -> None:
    index, vectors, queries = create(DIM), unit(5), unit(2, seed=1)
    index.add(np.arange(5, dtype=np.int64), vectors)
    before = index.search(queries, 5)
    vectors[:] = 0
    queries.flags.writeable = False
    assert_equal(index.search(queries, 5), before)
    # A slice with strides, and Fortran order, are read as what they show.
    assert_equal(index.search(np.repeat(queries, 2, axis=0)[::2], 5), before)
    assert_equal(index.search(np.asfortranarray(queries), 5), before)


def test_a_filter_lets_through_only_what_it_names(create: Callable[[int], VectorIndex]) -> None:
    index, oracle, queries = filled(create(DIM)), filled(BruteForce(DIM)), unit(3, seed=1)
    for allowed in (ids(1040, 1003, 1007), ids(1003, 5, 1003, 7_000_000, 999), np.arange(0, 2000, 7, dtype=np.int64)):
        assert_equal(index.search(queries, 10, allowed), oracle.search(queries, 10, allowed))
    assert index.search(queries, 10, ids(1003, 5)).rows.tolist() == [[1003]] * 3


def test_a_filter_that_names_nothing_finds_nothing(create: Callable[[int], VectorIndex]) -> None:
    index = filled(create(DIM))
    for allowed in (ids(), ids(1, 2, 3), ids(999, 1050, 7_000_000)):
        assert index.search(unit(3, seed=1), 10, allowed).rows.shape == (3, 0)


def test_removed_rows_are_gone_and_may_come_back_with_another_vector(create: Callable[[int], VectorIndex]) -> None:
    index, queries = filled(create(DIM), 5), unit(1, seed=1)
    assert index.remove(ids(1001, 1003, 77)) == 2
    assert index.remove(ids(1001, 1003)) == index.remove(ids()) == 0
    assert len(index) == 3
    assert set(index.search(queries, 9).rows[0].tolist()) == {1000, 1002, 1004}
    index.add(ids(1003), queries)
    found = index.search(queries, 1)
    assert (found.rows.tolist(), round(float(found.scores[0, 0]), 5)) == ([[1003]], 1.0)
    index.add(ids(), unit(0))
    assert len(index) == 4


@pytest.mark.parametrize(
    "vectors",
    [
        unit(2) * np.float32(1.01),
        np.zeros((2, DIM), np.float32),
        np.full((2, DIM), np.nan, np.float32),
        unit(2).astype(np.float64),
        unit(2).astype(np.float16),
        unit(2, dim=DIM + 1),
        unit(2, dim=DIM - 1),
        unit(1)[0],
        unit(2)[None],
    ],
    ids=["norm", "zero", "nan", "float64", "float16", "longer", "shorter", "one row", "three axes"],
)
def test_vectors_of_another_norm_type_or_shape_are_refused(
    create: Callable[[int], VectorIndex], vectors: Vectors
) -> None:
    index = filled(create(DIM), 3)
    with pytest.raises(ValueError, match=r"expected float32|L2 norm 1"):
        index.search(vectors, 1)
    with pytest.raises(ValueError, match=r"expected float32|L2 norm 1"):
        index.add(ids(1, 2), vectors)
    assert len(index) == 3


def test_a_k_below_one_and_ids_that_do_not_match_are_refused(create: Callable[[int], VectorIndex]) -> None:
    index = filled(create(DIM), 3)
    for k in (0, -1):
        with pytest.raises(ValueError, match="k must be"):
            index.search(unit(1), k)
    with pytest.raises(ValueError, match="ids"):
        index.add(ids(1), unit(2))
    assert len(index) == 3


def test_threads_may_search_while_others_change_the_index(create: Callable[[int], VectorIndex]) -> None:
    index, stopped = filled(create(DIM), 200, first=0), Event()
    kept, queries = unit(200), unit(4, seed=3)

    def change() -> None:
        rows = np.arange(200, 400, dtype=np.int64)
        try:
            for _ in range(60):
                index.add(rows, unit(200, seed=5))
                index.remove(rows)
        finally:
            stopped.set()

    def search() -> int:
        searches = 0
        while not stopped.is_set() or not searches:
            found = index.search(queries, 30)
            assert found.rows.shape == (4, 30)
            assert found.rows.min() >= 0
            lasting = found.rows < 200
            expected = np.einsum("nkd,nd->nk", kept[np.where(lasting, found.rows, 0)], queries)
            np.testing.assert_allclose(found.scores[lasting], expected[lasting], atol=1e-5)
            searches += 1
        return searches

    with ThreadPoolExecutor(4) as pool:
        changing, *searching = [pool.submit(change), *(pool.submit(search) for _ in range(3))]
        changing.result()
        assert min(future.result() for future in searching) > 0
    assert_equal(index.search(queries, 5), filled(BruteForce(DIM), 200, first=0).search(queries, 5))


def test_equal_scores_come_in_the_order_of_their_rows_also_where_k_cuts_them_off(
    create: Callable[[int], VectorIndex],
) -> None:
    index, oracle, queries = filled(create(DIM)), filled(BruteForce(DIM)), unit(6, seed=1)
    same = np.random.default_rng(0).permutation(400).astype(np.int64)
    for either in (index, oracle):
        either.add(same, np.repeat(queries[:1], 400, axis=0))
    assert index.search(queries[:1], 5).rows.tolist() == [[0, 1, 2, 3, 4]]
    for k in (1, 100, 399, 401):
        assert_equal(index.search(queries, k), oracle.search(queries, k))
    some = ids(17, 350, 4, 1003, 60)
    assert_equal(index.search(queries, 2, some), oracle.search(queries, 2, some))


@pytest.mark.parametrize("kind", [FlatIndex, Segmented, Rebased])
def test_a_query_finds_the_same_alone_and_among_others_bit_by_bit(kind: Callable[[int], VectorIndex]) -> None:
    """Products of matrices round otherwise than products of vectors; nobody may see which one it was."""
    dim, count = 640, 12
    assert count > MATRIX_PRODUCT_QUERIES
    index, queries = kind(dim), unit(count, seed=1, dim=dim)
    index.add(np.arange(3000, dtype=np.int64), unit(3000, dim=dim))
    together = index.search(queries, 20)
    for number in range(count):
        alone = index.search(queries[number : number + 1], 20)
        np.testing.assert_array_equal(together.rows[number], alone.rows[0])
        np.testing.assert_array_equal(together.scores[number], alone.scores[0])


def test_rows_and_their_vectors_can_be_read_back(create: Callable[[int], VectorIndex]) -> None:
    index, vectors = filled(create(DIM), 6), unit(6)
    index.remove(ids(1002))
    assert sorted(index.rows.tolist()) == [1000, 1001, 1003, 1004, 1005]
    rows, found = index.vectors(ids(1005, 1002, 3, 1000))
    assert dict(zip(rows.tolist(), found.tolist(), strict=True)) == {
        1000: vectors[0].tolist(),
        1005: vectors[5].tolist(),
    }
    assert [part.shape for part in index.vectors(ids())] == [(0,), (0, DIM)]
