"""Indexes built by a recipe: what reaches the recall is kept, what doesn't is refused with a remedy."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.unit.test_flat_index import BruteForce, assert_equal, unit
from worker.index.approximate_index import ApproximateIndex
from worker.index.arguments import QueryArguments
from worker.index.base_builder import HELD_OUT_SHARE
from worker.index.flat_index import FlatIndex
from worker.index.half_vectors import HalfVectors
from worker.index.kinds import KINDS, lists
from worker.index.recall import TIE, Measured, measure, recalls, true_scores
from worker.index.recipe import EXACT, EXACT_NUMBERS, FEWEST_ROWS, IndexRecipe, RecallNotReached, fast_enough
from worker.index.snapshot import Snapshots
from worker.index.tuning import Tuned
from worker.index.vector_index import Page, Vectors

DIM, COUNT = 32, 1500


def clustered(count: int = COUNT, dim: int = DIM) -> Vectors:
    """Vectors near a surface of 6 dimensions, as embeddings are: with neighbours worth finding."""
    random = np.random.default_rng(1)
    vectors = random.standard_normal((count, 6)) @ random.standard_normal((6, dim))
    vectors += 0.1 * random.standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def pages(vectors: Vectors, copies: int = 0) -> Iterator[Page]:
    """Rows 100, 101, ...; further rows show the image of the first one."""
    hashes = np.random.default_rng(3).integers(0, 256, (len(vectors), 32), dtype=np.uint8)
    of_rows = np.concatenate([np.arange(len(vectors)), np.zeros(copies, np.int64)])
    for part in np.array_split(np.random.default_rng(2).permutation(len(of_rows)), 7):
        yield 100 + part, hashes[of_rows[part]], vectors[of_rows[part]]


def written(folder: Path, recipe: IndexRecipe, vectors: Vectors, copies: int = 0) -> Snapshots:
    snapshots = Snapshots(folder, "encoder", vectors.shape[1], recipe)
    snapshots.write(pages(vectors, copies), len(vectors) + copies)
    return snapshots


@pytest.mark.parametrize("factory", ["HNSW16_SQ8", "IVF16,Flat", "PCA16,IVF16,SQ8", "PCA16,OPQ8,IVF16,PQ8x4fs"])
def test_a_factory_is_built_tuned_and_opened_again_with_what_was_measured(tmp_path: Path, factory: str) -> None:
    vectors = clustered()
    snapshot = written(tmp_path, IndexRecipe(0.9, factory=factory), vectors).newest()
    assert snapshot is not None
    index, told = snapshot.index, snapshot.described
    assert isinstance(index, ApproximateIndex)
    assert (told["kind"], told["factory"]) == ("own", factory)
    assert told["arguments"] == index.arguments.to_dict()
    assert told["plan"] == index.plan.to_dict()
    measured = told["measured"]
    assert measured["recall_at_10"] - measured["recall_error"] >= 0.9
    assert measured["recall_at_1"] >= 0.9
    assert 0 < measured["p50_ms"] <= measured["p95_ms"]
    assert (measured["rows"], measured["vectors"]) == (COUNT, COUNT)
    assert 0 < measured["queries"] < 2 * HELD_OUT_SHARE * COUNT
    assert 0 < measured["bytes_per_row"] < 1000
    assert {row["way"] for row in told["filters"]} == {"exact", "scan", "search"}
    # What was held out is in the index as well, and all rows have their own vectors.
    assert sorted(index.rows.tolist()) == list(range(100, 100 + COUNT))
    rows, found = index.vectors(np.arange(100, 100 + COUNT))
    np.testing.assert_allclose(found, vectors[rows - 100], atol=1e-3)
    itself = [
        index.search(vectors[number : number + 1], 1).rows[0, 0] == 100 + number for number in range(0, COUNT, 10)
    ]
    assert np.mean(itself) >= 0.95
    oracle = BruteForce(DIM)
    oracle.add(np.arange(100, 100 + COUNT), vectors)
    truth = oracle.search(vectors[:100], 10).rows
    share = [len(np.intersect1d(*rows)) / 10 for rows in zip(index.search(vectors[:100], 10).rows, truth, strict=True)]
    assert np.mean(share) >= 0.88


def test_an_image_of_many_items_is_kept_once_and_found_for_all(tmp_path: Path) -> None:
    vectors = clustered()
    snapshot = written(tmp_path, IndexRecipe(0.9, factory="HNSW16_SQ8"), vectors, copies=500).newest()
    assert snapshot is not None
    assert (snapshot.described["measured"]["rows"], snapshot.described["measured"]["vectors"]) == (COUNT + 500, COUNT)
    found = snapshot.index.search(vectors[:1], 501).rows[0]
    assert found.tolist() == [100, *range(100 + COUNT, 600 + COUNT)]
    hashes = {int(row): sha256.tobytes() for row, sha256 in zip(snapshot.index.rows, snapshot.hashes, strict=True)}
    assert len({hashes[int(row)] for row in found}) == 1
    assert len(set(hashes.values())) == COUNT
    far = snapshot.index.search(-vectors[:1], 10).rows[0]
    assert not set(far.tolist()) & set(found.tolist())


def test_a_recall_that_is_not_reached_is_refused_with_what_would_reach_it(tmp_path: Path) -> None:
    told = r"recall@10 1 is not reached.*IVF4,PQ1x4.*--recall-target 0\.\d+;.*--index Flat"
    with pytest.raises(RecallNotReached, match=told):
        written(tmp_path, IndexRecipe(1, factory="IVF4,PQ1x4"), unit(COUNT, dim=DIM))
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_memory_budget_that_no_kind_fits_is_refused_with_the_least_one(tmp_path: Path) -> None:
    with pytest.raises(RecallNotReached, match=r"keeps \d+ rows in 1000 bytes.*raise --memory-budget to that"):
        written(tmp_path, IndexRecipe(0.9, 1000), clustered())


def test_the_kind_is_chosen_by_the_memory_budget(tmp_path: Path) -> None:
    vectors, budget = clustered(), KINDS["ivf-sq"].bytes_for(COUNT, DIM)
    assert budget < KINDS["hnsw"].bytes_for(COUNT, DIM)
    snapshot = written(tmp_path, IndexRecipe(0.9, budget), vectors).newest()
    assert snapshot is not None
    assert snapshot.described["kind"] == "ivf-sq"
    assert snapshot.described["measured"]["bytes_per_row"] * COUNT <= 1.05 * budget


def test_few_rows_are_searched_exactly_whatever_the_recipe(tmp_path: Path) -> None:
    vectors = clustered(FEWEST_ROWS - 1)
    for number, recipe in enumerate((EXACT, IndexRecipe(0.9), IndexRecipe(0.9, factory="HNSW16"))):
        snapshot = written(tmp_path / str(number), recipe, vectors).newest()
        assert snapshot is not None
        assert isinstance(snapshot.index, FlatIndex)
        oracle = BruteForce(DIM)
        oracle.add(100 + np.arange(len(vectors)), vectors)
        assert_equal(snapshot.index.search(unit(3, dim=DIM), 5), oracle.search(unit(3, dim=DIM), 5))


def test_a_recipe_is_exact_as_long_as_that_is_fast_and_fits() -> None:
    rows = EXACT_NUMBERS // 1280
    assert fast_enough(rows, 1280) == EXACT
    assert not fast_enough(rows + 1, 1280).is_exact
    assert IndexRecipe(0.99).is_exact_for(rows, 1280)
    assert not IndexRecipe(0.99).is_exact_for(rows + 1, 1280)
    assert not IndexRecipe(0.99, 1000 * rows).is_exact_for(rows, 1280)
    assert not IndexRecipe(0.99, factory="HNSW32").is_exact_for(rows, 1280)
    assert IndexRecipe(1).is_exact_for(10**9, 1280)
    assert IndexRecipe(0.5, factory="Flat").is_exact_for(10**9, 1280)


def test_each_recipe_has_a_name_of_its_own_and_can_be_read_back() -> None:
    recipes = [IndexRecipe(0.9), IndexRecipe(0.95), IndexRecipe(0.9, 10**9), IndexRecipe(0.9, factory="HNSW32")]
    assert len({recipe.name for recipe in recipes}) == len(recipes)
    assert {EXACT.name, IndexRecipe(0.5, factory="Flat").name} == {"flat"}
    for recipe in recipes:
        assert IndexRecipe(**json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize("wrong", [{"recall_target": 0}, {"recall_target": 1.1}, {"memory_budget_bytes": 0}])
def test_a_recipe_that_means_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"recall target|memory budget"):
        IndexRecipe(**wrong)  # type: ignore[arg-type]


def test_recall_counts_what_is_as_near_as_the_truth() -> None:
    truth = np.array([[0.9, 0.8, 0.7], [0.5, 0.5, 0.5]], np.float32)
    assert recalls(truth, truth).tolist() == [1, 1]
    found = np.array([[0.9, 0.7, 0.6], [0.5 + TIE / 2, 0.4, 0.4]], np.float32)
    np.testing.assert_allclose(recalls(found, truth), [2 / 3, 1 / 3])
    assert recalls(np.array([[0.9, -np.inf, -np.inf]], np.float32), truth[:1]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("allowed", [None, np.array([3, 5, 17, 29])])
def test_the_truth_is_what_brute_force_finds(allowed: np.ndarray | None) -> None:
    stored = HalfVectors(unit(50, dim=DIM).astype(np.float16))
    vectors = stored.at(slice(None)) if allowed is None else stored.at(allowed)
    expected = -np.sort(-(unit(4, seed=7, dim=DIM) @ vectors.T), axis=1)[:, :10]
    np.testing.assert_allclose(true_scores(stored, unit(4, seed=7, dim=DIM), 10, allowed), expected, atol=1e-6)


def test_an_exact_index_measures_as_one() -> None:
    index, vectors = FlatIndex(DIM), unit(50, dim=DIM)
    index.add(np.arange(50), vectors)
    truth = true_scores(HalfVectors(vectors.astype(np.float16)), vectors[:5], 10)
    measured = measure(index, lambda query: index.search(query, 10), vectors[:5], truth - 1e-3)
    assert (measured.recall_at_1, measured.recall_at_10, measured.recall_error) == (1, 1, 0)


def test_a_target_is_reached_by_more_than_the_standard_error() -> None:
    def tuned(recall: float, error: float) -> Tuned:
        return Tuned(QueryArguments(1), Measured(1, recall, error, 1, 1, 1))

    assert tuned(0.991, 0.001).reaches(0.99)
    assert not tuned(0.9905, 0.001).reaches(0.99)
    assert tuned(1, 0).reaches(1)


def test_lists_grow_with_the_rows_and_are_never_emptier_than_64() -> None:
    counts = [lists(rows) for rows in (1, 100, 10_000, 43_916, 10**6, 10**7)]
    assert counts == sorted(counts)
    assert all(count & (count - 1) == 0 for count in counts)
    assert all(rows / count >= 64 for rows, count in zip((10_000, 43_916, 10**6, 10**7), counts[2:], strict=True))


def test_queries_of_ones_own_may_be_tuned_with_and_then_no_row_is_held_out(tmp_path: Path) -> None:
    vectors, queries = np.split(clustered(COUNT + 60), [COUNT])
    snapshots = Snapshots(tmp_path, "encoder", DIM, IndexRecipe(0.9, factory="HNSW16_SQ8"))
    snapshot = snapshots.write(pages(vectors), COUNT, queries)
    assert snapshot.described["measured"]["queries"] == 60
    assert len(snapshot.index) == COUNT
    assert snapshot.index.search(vectors[-1:], 1).rows.tolist() == [[100 + COUNT - 1]]
