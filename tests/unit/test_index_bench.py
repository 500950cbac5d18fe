"""What `make bench-index` measures with: growth, dimension, recall, swapping."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.index import growth, ten_million
from benchmarks.index.dimension import intrinsic_dimension
from benchmarks.index.growth import NEIGHBOURS, grow, grown
from benchmarks.index.latency import Judge, Point, best_scores, fastest
from benchmarks.index.swapping import SWAPS, swap
from benchmarks.index.ten_million import GROWING, Timed, continued, measured_before, pages
from tests.unit.test_flat_index import unit
from worker.index.flat_index import FlatIndex
from worker.index.recipe import IndexRecipe
from worker.index.vector_index import Page, Vectors


def surface(count: int, dimension: int, dim: int = 32) -> Vectors:
    """Vectors on a smooth surface of a dimension."""
    random = np.random.default_rng(0)
    vectors = np.tanh(random.standard_normal((count, dimension)) @ random.standard_normal((dimension, dim)) / 3)
    vectors[:, 0] += 4
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("dimension", [2, 5])
def test_the_dimension_of_a_surface_is_found(dimension: int) -> None:
    assert intrinsic_dimension(surface(4000, dimension)) == pytest.approx(dimension, rel=0.2)


def test_grown_vectors_begin_with_the_real_ones_and_stay_on_their_surface(tmp_path: Path) -> None:
    real, others = np.split(surface(1500, 4), [1000])
    vectors = grown(real, 5000, tmp_path)
    np.testing.assert_array_equal(vectors[:1000], real)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert intrinsic_dimension(vectors, others) < 7  # uniform noise would have 31
    nearest = best_scores(vectors[1000:2000], real)[:, 0]
    apart = np.sort(real @ real.T, axis=1)[:, -1 - NEIGHBOURS]
    assert nearest.mean() > apart.mean()
    np.testing.assert_array_equal(grown(real, 5000, tmp_path), vectors)


def test_growth_streams_the_same_blocks_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "BLOCK", 300)
    real = surface(100, 3)
    blocks = list(grow(real, 1000))
    assert [len(block) for block in blocks] == [100, 300, 300, 300]
    np.testing.assert_array_equal(np.concatenate(blocks), np.concatenate(list(grow(real, 1000))))
    assert [len(block) for block in grow(real, 40)] == [40]


def test_copies_among_the_real_vectors_do_not_disturb_growth() -> None:
    real = np.repeat(surface(30, 3), 40, axis=0)
    assert np.isfinite(np.concatenate(list(grow(real, 2000)))).all()


def test_ten_million_are_continued_on_the_line_through_two_builds() -> None:
    first = {"rows": 1_000_000, **dict.fromkeys(GROWING, 5.0)}
    second = {"rows": 2_000_000, **dict.fromkeys(GROWING, 7.0)}
    assert continued(first, second, 10_000_000) == dict.fromkeys(GROWING, 23.0)
    assert continued(first, second, 1_000_000) == dict.fromkeys(GROWING, 5.0)


def test_pages_of_grown_vectors_name_each_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "BLOCK", 300)
    found = list(pages(surface(100, 3), 1000))
    np.testing.assert_array_equal(np.concatenate([rows for rows, _, _ in found]), np.arange(1000))
    assert len({sha256.tobytes() for _, hashes, _ in found for sha256 in hashes}) == 1000
    assert sum(len(vectors) for _, _, vectors in found) == 1000


def test_a_judge_counts_what_is_missing_and_takes_any_of_equal_rows() -> None:
    vectors = unit(200, dim=8)
    vectors[100:] = vectors[:100]
    queries = unit(20, seed=1, dim=8)
    judge = Judge(vectors, queries, best_scores(queries, vectors))
    order = [np.argsort(-(vectors @ query)) for query in queries]
    exact = {query.tobytes(): rows for query, rows in zip(queries, order, strict=True)}
    whole = judge.judge("whole", lambda query: exact[query[0].tobytes()][:10])
    assert (whole.setting, whole.recall) == ("whole", 1)
    assert judge.judge("half", lambda query: exact[query[0].tobytes()][:5]).recall == 0.5
    other = judge.judge("copies", lambda query: (exact[query[0].tobytes()][:10] + 100) % 200)
    assert other.recall == 1
    assert judge.judge("last", lambda query: exact[query[0].tobytes()][-10:]).recall == 0


def test_the_fastest_setting_is_one_that_finds_enough() -> None:
    points = [Point("a", 0.9, 1, 1), Point("b", 0.995, 3, 3), Point("c", 0.99, 2, 2), Point("d", 1, 9, 9)]
    assert fastest(points, 0.99) == points[2]
    assert fastest(points[:1], 0.99) is None


def test_bases_change_under_searches_and_none_fails_or_mixes_them() -> None:
    one, other = FlatIndex(8), FlatIndex(8)
    one.add(np.arange(100), unit(100, dim=8))
    other.add(np.arange(1000, 1100), unit(100, dim=8))
    swapped = swap(one, other, unit(20, seed=1, dim=8))
    assert (swapped.failures, swapped.swaps) == (0, SWAPS)
    assert swapped.searches > SWAPS
    mixed = FlatIndex(8)
    mixed.add(np.arange(95, 195), unit(100, dim=8))
    assert swap(one, mixed, unit(20, seed=1, dim=8)).searches > 0


def test_the_time_to_make_pages_is_told_apart() -> None:
    def slowly() -> Iterator[Page]:
        for rows, hashes, vectors in pages(surface(10, 3), 10):
            time.sleep(0.05)
            yield rows, hashes, vectors

    made = Timed(slowly())
    for _ in made:
        time.sleep(0.2)
    assert 0.05 <= made.seconds < 0.2


def test_what_was_measured_before_counts_if_the_recipe_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ten_million, "RESULTS", tmp_path)
    recipe = IndexRecipe(0.95, 200)
    assert measured_before(1, recipe) is None
    figures = {"recall_at_10": 0.96, "build_seconds": 7.0, "p50_ms": 1.0, "p95_ms": 2.0}
    run = {
        "data": {"recipe": recipe.to_dict(), "tuning_queries": 5},
        "chosen": {"factory": "IVF1,Flat", "arguments": {"effort": 1}, "measured": figures},
        "opening": {"own": 1e9, "codes": 2e9, "load_s": 0.5},
        "disk_bytes": 4e9,
    }
    (tmp_path / "index-1.json").write_text(json.dumps(run))
    found = measured_before(1, recipe)
    assert found is not None
    assert {name: found[name] for name in GROWING} == {
        "build_s": 7.0,
        "resident_gb": 3.0,
        "disk_gb": 4.0,
        "load_s": 0.5,
        "p50_ms": 1.0,
        "p95_ms": 2.0,
    }
    assert measured_before(1, IndexRecipe(0.99, 200)) is None
