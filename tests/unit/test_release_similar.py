"""The threshold of similar hits, against explicit loops."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from worker.releases.similar import (
    ALTERATIONS,
    MARGIN_HITS,
    MIN_HITS,
    MIN_INDEX_ROWS,
    THRESHOLDS,
    calibrate,
    choose_threshold,
    similar_hits,
    top_items,
    versions,
)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def near(photos: np.ndarray, spread: float, copies: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, spread, (len(photos), copies, photos.shape[1]))
    return unit(photos[:, None] + noise)


@pytest.fixture
def index() -> np.ndarray:
    return unit(np.random.default_rng(1).normal(size=(150, 12)))


@pytest.fixture
def photos() -> np.ndarray:
    return unit(np.random.default_rng(2).normal(size=(9, 12)))


def slow_top(index: np.ndarray, items: list[str], query: np.ndarray) -> set[str]:
    best: dict[str, float] = {}
    for item, row in zip(items, index, strict=True):
        score = float(row @ query)
        best[item] = max(best.get(item, -2.0), score)
    return set(sorted(best, key=lambda item: -best[item])[:10])


def test_each_item_counts_once_by_its_best_image(index: np.ndarray, photos: np.ndarray) -> None:
    items = [f"i{row // 3}" for row in range(150)]
    assert top_items(index, items, photos) == [slow_top(index, items, query) for query in photos]
    assert {len(top) for top in top_items(index, items, photos)} == {10}


def test_fewer_items_than_ten_are_all_found(index: np.ndarray, photos: np.ndarray) -> None:
    assert top_items(index[:4], ["a", "b", "b", "c"], photos) == [{"a", "b", "c"}] * len(photos)


def test_each_copy_asks_a_cache_with_its_photo_and_one_without(index: np.ndarray, photos: np.ndarray) -> None:
    items = [str(row) for row in range(150)]
    copies = near(photos, 0.12, 2, seed=3)
    expected: list[tuple[float, float]] = []
    for has_own in (True, False):
        for number, of_photo in enumerate(copies):
            for copy in of_photo:
                cached = [p for p in range(len(photos)) if has_own or p != number]
                nearest = max(cached, key=lambda p: float(photos[p] @ copy))
                kept = slow_top(index, items, copy) & slow_top(index, items, photos[nearest])
                expected.append((float(photos[nearest] @ copy), len(kept) / 10))
    cosines, overlaps = similar_hits(index, items, photos, copies)
    assert np.allclose(cosines, [cosine for cosine, _ in expected], atol=1e-6)
    assert np.allclose(overlaps, [overlap for _, overlap in expected])
    assert overlaps[:18].mean() > overlaps[18:].mean() > 0


def slow_threshold(pairs: list[tuple[float, float]]) -> float:
    for threshold in THRESHOLDS:
        hits = sorted(pair for pair in pairs if pair[0] >= threshold)
        if len(hits) < MIN_HITS:
            continue
        mean = sum(overlap for _, overlap in hits) / len(hits)
        margin = [overlap for _, overlap in hits[:MARGIN_HITS]]
        if round(mean, 4) >= 0.9 and round(sum(margin) / len(margin), 4) >= 0.8:
            return threshold
    return 1.0


@pytest.mark.parametrize("seed", range(12))
def test_the_threshold_is_the_lowest_that_keeps_nine_of_ten(seed: int) -> None:
    random = np.random.default_rng(seed)
    cosines = random.uniform(0.85, 1, 600)
    start = random.uniform(0.9, 0.99)
    overlaps = np.round(np.clip(1 - (start - cosines) * 4, 0.2, 1) - random.uniform(0, 0.15, 600), 1)
    threshold, table = choose_threshold(cosines, overlaps)
    pairs = list(zip(cosines.tolist(), overlaps.tolist(), strict=True))
    assert threshold == slow_threshold(pairs)
    assert 0.9 <= threshold < 1
    for row in table:
        hits = [overlap for cosine, overlap in pairs if cosine >= row["cosine"]]
        assert row["hits"] == len(hits)
        assert row["mean_overlap"] == pytest.approx(sum(hits) / len(hits), abs=1e-4)


def test_exact_copies_do_not_pay_for_bad_answers_near_the_threshold() -> None:
    cosines = np.concatenate([np.full(900, 0.9995), np.linspace(0.95, 0.96, 60)])
    overlaps = np.concatenate([np.ones(900), np.full(60, 0.4)])
    assert overlaps.mean() > 0.9
    assert 0.955 < choose_threshold(cosines, overlaps)[0] < 0.96


def test_no_threshold_will_do_where_answers_differ_however_near_photos_are() -> None:
    assert choose_threshold(np.linspace(0.9, 1, 500), np.full(500, 0.7))[0] == 1.0


def test_too_few_hits_decide_nothing() -> None:
    few = MIN_HITS - 1
    assert choose_threshold(np.full(few, 0.99), np.ones(few))[0] == 1.0
    assert choose_threshold(np.full(MIN_HITS, 0.99), np.ones(MIN_HITS))[0] == 0.9
    assert choose_threshold(np.empty(0), np.empty(0)) == (1.0, [])


def test_what_goes_into_the_manifest_says_how_it_was_measured(index: np.ndarray, photos: np.ndarray) -> None:
    items = [str(row) for row in range(150)]
    result: dict[str, Any] = calibrate(index, items, photos, near(photos, 0.001, 5, seed=4))
    assert 0.9 <= result["min_cosine"] < 1
    assert (result["wanted_overlap"], result["photos"]) == (0.9, 9)
    assert [row["cosine"] for row in result["table"]] == sorted(row["cosine"] for row in result["table"])
    assert all(name in result["how"] for name in ALTERATIONS)
    assert result == calibrate(index, items, photos, near(photos, 0.001, 5, seed=4))


def test_a_small_catalogue_calibrates_nothing(index: np.ndarray, photos: np.ndarray) -> None:
    few = MIN_INDEX_ROWS - 1
    result = calibrate(index[:few], [str(row) for row in range(few)], photos, near(photos, 0.001, 5, seed=4))
    assert result["min_cosine"] == 1.0
    assert "not calibrated" in result["how"]


def test_copies_are_altered_as_people_alter_photos() -> None:
    photo = Image.effect_noise((1500, 900), 60).convert("RGB")
    original, *copies = versions(photo)
    assert photo.size == (1500, 900)
    assert original.size == (1024, 614)
    assert {copy.mode for copy in copies} == {"RGB"}
    named = dict(zip(ALTERATIONS, copies, strict=True))
    assert named["JPEG of quality 40"].size == original.size
    assert named["cropped by 6%"].size == (963, 577)
    assert named["two thirds of the size"].size == (682, 409)
    brightness = [float(np.asarray(image).mean()) for image in (original, named["10% brighter"])]
    assert brightness[1] > brightness[0] + 5
    assert all(len(version.tobytes()) > 0 for version in versions(Image.new("RGB", (1, 1))))
