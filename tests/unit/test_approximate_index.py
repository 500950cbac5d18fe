"""The contract of ReadableIndex, kept by every approximate kind; numpy's brute force decides.

Searched thoroughly, an approximate index finds what brute force finds: so exactly that is asked for, but for the order
of rows whose scores are tied. Scores are of half precision.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import worker.index.allowed_rows
from tests.faiss_kinds import COUNT, DIM, FACTORIES, PLANS, THOROUGH, fill, train
from tests.unit.test_flat_index import BruteForce, ids, unit
from worker.index import Neighbours
from worker.index.approximate_index import ApproximateIndex
from worker.index.arguments import BuildArguments, QueryArguments
from worker.index.half_vectors import HalfVectors
from worker.index.structure import Structure
from worker.index.vector_index import Rows, Vectors

Build = Callable[..., ApproximateIndex]


@pytest.fixture(scope="module", params=FACTORIES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A structure that has learned its codes and lists, and holds nothing yet."""
    factory = FACTORIES[request.param]
    path = tmp_path_factory.mktemp("trained") / "structure"
    train(factory, path)
    return path, factory


@pytest.fixture
def build(trained: tuple[Path, str], tmp_path: Path) -> Build:
    return partial(fill, trained, tmp_path)


def pair(build: Build, rows: Rows, vectors: Vectors) -> tuple[ApproximateIndex, BruteForce]:
    oracle = BruteForce(vectors.shape[1])
    oracle.add(rows, vectors.astype(np.float16).astype(np.float32))
    return build(rows, vectors), oracle


def shuffled(count: int = COUNT, first: int = 1000) -> Rows:
    return first + np.random.default_rng(4).permutation(count).astype(np.int64)


def assert_as(found: Neighbours, expected: Neighbours) -> None:
    """Compare scores; rows where no neighbour in the order is tied."""
    assert [found.rows.dtype, found.scores.dtype] == [np.dtype(np.int64), np.dtype(np.float32)]
    assert found.rows.shape == expected.rows.shape
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    for rows in found.rows:
        assert len(set(rows.tolist())) == len(rows)
    if not found.rows.size:
        return
    gaps = np.abs(np.diff(expected.scores, axis=1)) > 1e-5
    is_alone = np.pad(gaps, ((0, 0), (1, 0)), constant_values=True) & np.pad(gaps, ((0, 0), (0, 1)))
    np.testing.assert_array_equal(found.rows[is_alone], expected.rows[is_alone])


def test_it_finds_what_brute_force_finds(build: Build) -> None:
    index, oracle = pair(build, shuffled(), unit(COUNT, dim=DIM))
    queries = unit(7, seed=1, dim=DIM)
    for k in (1, 10, COUNT - 1, COUNT, COUNT + 5):
        assert_as(index.search(queries, k), oracle.search(queries, k))
    assert (index.dim, len(index), index.is_exact) == (DIM, COUNT, False)
    assert sorted(index.rows.tolist()) == sorted(oracle.rows.tolist())


@pytest.mark.parametrize("count", [0, 1, 2])
def test_it_may_hold_few_rows_or_none(build: Build, count: int) -> None:
    index, oracle = pair(build, shuffled(count), unit(count, dim=DIM))
    queries = unit(3, seed=1, dim=DIM)
    for allowed in (None, ids(), ids(1000), ids(5, 1001, 7_000_000)):
        assert_as(index.search(queries, 10, allowed), oracle.search(queries, 10, allowed))


@pytest.mark.parametrize("plan", PLANS)
def test_a_filter_lets_through_only_what_it_names_whichever_way_it_takes(build: Build, plan: str) -> None:
    index, oracle = pair(build, shuffled(), unit(COUNT, dim=DIM))
    queries = unit(5, seed=1, dim=DIM)
    for allowed in (
        np.arange(0, 2000, 2, dtype=np.int64),
        np.arange(1000, 1000 + COUNT, 37, dtype=np.int64),
        ids(1003, 5, 1003, 7_000_000, 999),
        ids(),
        ids(1, 2),
    ):
        for k in (1, 10, COUNT):
            found = index.search(queries, k, allowed, plan=PLANS[plan])
            assert_as(found, oracle.search(queries, k, allowed))


def test_what_a_filter_lets_through_is_remembered_while_its_rows_live_and_can_not_change(build: Build) -> None:
    index, oracle = pair(build, shuffled(), unit(COUNT, dim=DIM))
    queries = unit(2, seed=1, dim=DIM)
    for first in (1000, 1001, 1002):
        fixed = np.arange(first, 1000 + COUNT, 3, dtype=np.int64)
        fixed.flags.writeable = False
        for _ in range(2):
            assert_as(index.search(queries, 10, fixed), oracle.search(queries, 10, fixed))
        assert len(index._filters) == 1  # that of the rows before went with them
        changing = fixed.copy()
        index.search(queries, 10, changing)
        changing += 1
        assert_as(index.search(queries, 10, changing), oracle.search(queries, 10, changing))
    del fixed
    assert index._filters._known == {}


@pytest.mark.parametrize("plan", ["scan", "search"])
def test_as_many_rows_as_are_allowed_are_found_even_with_the_least_effort(build: Build, plan: str) -> None:
    """Lists and graphs lead to few of the allowed rows, where these lie elsewhere than the query."""
    vectors = unit(COUNT, dim=DIM)
    index, _ = pair(build, shuffled(), vectors)
    far = index.rows[np.argsort(vectors @ vectors[0])[:30]]
    lazy = QueryArguments(effort=1, rerank=1)
    for k in (1, 10, 30, 60):
        found = index.search(vectors[:1], k, far, lazy, PLANS[plan])
        assert found.rows.shape == (1, min(k, 30))
        assert set(found.rows[0].tolist()) <= set(far.tolist())
    assert index.search(vectors[:1], COUNT, arguments=lazy).rows.shape == (1, COUNT)


def test_copies_of_one_vector_hide_no_others(build: Build) -> None:
    """One image of many items, such as a placeholder: its rows share one vector."""
    vectors, rows = unit(COUNT, dim=DIM), shuffled(COUNT + 149)
    index = build(rows, vectors, starts=np.array([0, *range(150, COUNT + 150)]))
    oracle = BruteForce(DIM)
    oracle.add(rows, np.repeat(vectors, [150] + [1] * (COUNT - 1), axis=0).astype(np.float16).astype(np.float32))
    queries = np.concatenate([vectors[:1], unit(4, seed=1, dim=DIM)])
    for k in (5, 150, 200):
        assert_as(index.search(queries, k), oracle.search(queries, k))
    for plan in PLANS.values():
        for allowed in (rows[:100], rows[100:300], rows[::2]):
            assert_as(index.search(queries, 120, allowed, plan=plan), oracle.search(queries, 120, allowed))
    found, read = index.vectors(np.concatenate([rows[149:152], ids(3)]))
    assert sorted(found.tolist()) == sorted(rows[149:152].tolist())
    expected = {int(row): vector for row, vector in zip(rows[149:152], vectors[:3].astype(np.float16), strict=True)}
    for row, vector in zip(found, read, strict=True):
        np.testing.assert_array_equal(vector, expected[int(row)])
    copies = index.search(vectors[:1], 150)
    assert copies.rows[0].tolist() == sorted(index.rows[:150].tolist())
    assert len(set(copies.scores[0].tolist())) == 1


def test_without_re_ranking_scores_are_those_of_the_codes(build: Build) -> None:
    index, oracle = pair(build, shuffled(), unit(COUNT, dim=DIM))
    queries = unit(5, seed=1, dim=DIM)
    found = index.search(queries, 10, arguments=replace(THOROUGH, rerank=0))
    assert found.rows.shape == (5, 10)
    assert (np.diff(found.scores, axis=1) <= 0).all()
    assert np.abs(found.scores).max() <= 1
    share = np.mean(
        [len(np.intersect1d(*rows)) for rows in zip(found.rows, oracle.search(queries, 10).rows, strict=True)]
    )
    assert share >= 2  # of 10 by chance: 0.25


def test_a_query_finds_the_same_alone_among_others_and_beside_other_threads_bit_by_bit(build: Build) -> None:
    index, _ = pair(build, shuffled(), unit(COUNT, dim=DIM))
    index.arguments = QueryArguments(effort=2, rerank=2)
    queries = unit(32, seed=1, dim=DIM)
    together = index.search(queries, 10)
    with ThreadPoolExecutor(8) as pool:
        alone = list(pool.map(lambda number: index.search(queries[number : number + 1], 10), range(32)))
    np.testing.assert_array_equal(together.rows, np.concatenate([one.rows for one in alone]))
    np.testing.assert_array_equal(together.scores, np.concatenate([one.scores for one in alone]))


def test_arguments_of_one_search_are_not_those_of_the_next(build: Build) -> None:
    index, oracle = pair(build, shuffled(), unit(COUNT, dim=DIM))
    queries = unit(20, seed=1, dim=DIM)
    index.search(queries, 10, arguments=QueryArguments(effort=1, rerank=1))
    assert_as(index.search(queries, 10), oracle.search(queries, 10))


def test_queries_stay_as_they_are(build: Build) -> None:
    index, _ = pair(build, shuffled(), unit(COUNT, dim=DIM))
    queries = unit(4, seed=1, dim=DIM)
    before = index.search(queries, 5)
    queries.flags.writeable = False
    for same in (queries, np.repeat(queries, 2, axis=0)[::2], np.asfortranarray(queries)):
        np.testing.assert_array_equal(index.search(same, 5).rows, before.rows)


def test_rows_and_their_vectors_can_be_read_back_in_half_precision(build: Build) -> None:
    vectors = unit(COUNT, dim=DIM)
    index, _ = pair(build, shuffled(), vectors)
    wanted = index.rows[[5, 300, 17]]
    rows, found = index.vectors(np.concatenate([wanted, ids(3)]))
    assert sorted(rows.tolist()) == sorted(wanted.tolist())
    for row, vector in zip(rows, found, strict=True):
        np.testing.assert_array_equal(vector, vectors[np.flatnonzero(index.rows == row)[0]].astype(np.float16))


@pytest.mark.parametrize(
    ("vectors", "k"),
    [
        (unit(2, dim=DIM) * np.float32(1.01), 1),
        (unit(2, dim=DIM + 1), 1),
        (unit(2, dim=DIM).astype(np.float64), 1),
        (unit(2, dim=DIM), 0),
    ],
    ids=["norm", "longer", "float64", "k"],
)
def test_what_can_not_be_searched_with_is_refused(build: Build, vectors: Vectors, k: int) -> None:
    index, _ = pair(build, shuffled(), unit(COUNT, dim=DIM))
    with pytest.raises(ValueError, match=r"expected float32|L2 norm 1|k must be"):
        index.search(vectors, k)


@pytest.mark.parametrize("length", [0, 3, 200, -40])
def test_a_damaged_structure_is_refused(build: Build, trained: tuple[Path, str], tmp_path: Path, length: int) -> None:
    pair(build, shuffled(), unit(COUNT, dim=DIM))
    whole = (tmp_path / "structure").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:length])
    with pytest.raises(ValueError, match="FAISS can't read"):
        Structure.mapped(tmp_path / "cut", trained[1])


def test_parts_that_do_not_belong_together_are_refused(build: Build) -> None:
    index, _ = pair(build, shuffled(), unit(COUNT, dim=DIM))
    with pytest.raises(ValueError, match="400 codes, 10 vectors, 400 rows"):
        ApproximateIndex(index._structure, index._stored.first(10), index.rows, THOROUGH, PLANS["scan"])


@pytest.mark.parametrize(
    ("factory", "problem"),
    [
        ("Nonsense", "could not parse"),
        ("Flat", "neither a graph"),
        ("L2norm,IVF4,Flat", "not linear"),
        ("IVF5000,Flat", "5000"),
    ],
)
def test_what_can_not_be_built_is_refused(factory: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Structure.trained(BuildArguments(factory), unit(1000, dim=DIM))


def test_vectors_are_compared_only_while_their_codes_leave_it_open_whether_they_are_among_the_best(
    build: Build, trained: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directions = unit(2, seed=5, dim=DIM)
    angles = np.linspace(0, np.pi, COUNT)[:, None]
    vectors = np.cos(angles) * directions[:1] + np.sin(angles) * directions[1:] + 0.1 * unit(COUNT, seed=6, dim=DIM)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    index, oracle = pair(build, shuffled(), vectors)
    compared: list[int] = []
    scores = HalfVectors.scores

    def counted(self: HalfVectors, query: Vectors, positions: Rows) -> Vectors:
        compared.append(len(positions))
        return scores(self, query, positions)

    monkeypatch.setattr(HalfVectors, "scores", counted)
    for k in (1, 10, 100):
        compared.clear()
        assert_as(index.search(directions[:1], k), oracle.search(directions[:1], k))
        assert max(64, k) <= sum(compared) <= COUNT
        assert (sum(compared) < COUNT - 50) == ("SQ8" in trained[1])


@pytest.mark.parametrize(
    ("factory", "is_lower_bound"),
    [
        ("PCA16,HNSW8_SQ8", True),
        ("PCAR16,HNSW8_SQ8_direct_signed", True),
        ("HNSW8_SQ8", True),
        ("PCAW16,HNSW8_SQ8", False),
        ("IVF4,PQ8x4", False),
    ],
)
def test_codes_bound_distances_only_where_nothing_makes_these_longer(factory: str, is_lower_bound: bool) -> None:
    assert Structure.trained(BuildArguments(factory), unit(1000, dim=DIM)).is_lower_bound == is_lower_bound


@pytest.mark.parametrize("most_bytes", [0, 3000, 2**20])
def test_codes_are_kept_with_filters_that_come_again_as_long_as_there_is_room(
    build: Build, monkeypatch: pytest.MonkeyPatch, most_bytes: int
) -> None:
    monkeypatch.setattr(worker.index.allowed_rows, "MOST_COPIED_BYTES", most_bytes)
    index, oracle = pair(build, shuffled(), unit(COUNT, dim=DIM))
    queries = unit(3, seed=1, dim=DIM)
    filters = [np.arange(1000 + first, 1000 + COUNT, 4, dtype=np.int64) for first in range(4)]
    for allowed in filters:
        allowed.flags.writeable = False
        for _ in range(2):
            assert_as(index.search(queries, 10, allowed, plan=PLANS["scan"]), oracle.search(queries, 10, allowed))
    can_copy = index._structure.copied(np.arange(1)) is not None
    size = index._structure.code_bytes  # of a row; each filter has 100
    assert index._filters.copied() == [100] * (min(4, most_bytes // (100 * size)) if can_copy else 0)
