from pathlib import Path

import numpy as np
import pytest

from training.knowledge import calibrate_scores, class_statistics, fit_logistic
from training.labelled_photos import LabelledPhotos
from training.metrics import average_precision_at_r, interval, paired_difference, precision_at, recall_at
from training.retrieval import Found, search


def random_photos(count: int, seed: int = 0) -> tuple[LabelledPhotos, np.ndarray]:
    random = np.random.default_rng(seed)
    kinds = random.choice(["a", "b", "c", "d"], count, p=[0.5, 0.3, 0.15, 0.05])
    colours = random.choice(["red", "blue"], count)
    splits = random.choice(["train", "val", "test"], count, p=[0.6, 0.1, 0.3])
    embeddings = random.normal(size=(count, 6)) + 1.5 * np.eye(4, 6)[np.searchsorted(["a", "b", "c", "d"], kinds)]
    embeddings = (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)
    paths = tuple(Path(str(row)) for row in range(count))
    values = {"kind": kinds, "base_colour": colours}
    return LabelledPhotos(paths, tuple(map(str, range(count))), "kind", values, splits), embeddings


def test_figures_are_what_explicit_loops_over_brute_force_give() -> None:
    photos, embeddings = random_photos(140)
    queries, index = photos.rows_of("test"), photos.rows_of("train", "val")
    figures = search(photos, embeddings, queries, index).figures()
    kinds, colours = photos.values["kind"], photos.values["base_colour"]
    for place, query in enumerate(queries):
        ranked = sorted(index.tolist(), key=lambda row: -float(embeddings[query].astype(float) @ embeddings[row]))
        for k in (1, 5, 10):
            right = sum(kinds[row] == kinds[query] for row in ranked[:k])
            assert figures[f"p_at_{k}"][place] == pytest.approx(right / k)
            assert figures[f"recall_at_{k}"][place] == float(right > 0)
        same = sum(kinds[row] == kinds[query] for row in index)
        total, seen = 0.0, 0
        for rank, row in enumerate(ranked[:same], 1):
            if kinds[row] == kinds[query]:
                seen += 1
                total += seen / rank
        assert figures["map_at_r"][place] == pytest.approx(total / same if same else 0)
        agreed = sum(colours[row] == colours[query] for row in ranked[:5])
        assert figures["colour_at_5"][place] == pytest.approx(agreed / 5)


def test_figures_of_a_known_case() -> None:
    relevant = np.array([[True, False, True, True], [False, False, False, False]])
    assert precision_at(relevant, 1).tolist() == [1, 0]
    assert precision_at(relevant, 4).tolist() == [0.75, 0]
    assert recall_at(relevant, 2).tolist() == [1, 0]
    # R = 3: (1/1 + 2/3) / 3; R = 0 gives 0.
    assert average_precision_at_r(relevant, np.array([3, 0])).tolist() == pytest.approx([5 / 9, 0])


def test_photos_without_a_value_do_not_agree_in_it() -> None:
    photos, _ = random_photos(6)
    colours = np.array(["", "red", "", "red", "", "blue"])
    known = LabelledPhotos(photos.paths, photos.items, "kind", photos.values | {"base_colour": colours}, photos.splits)
    rows = np.arange(6)
    found = Found(known, rows[:2], rows[2:], np.array([[2, 4, 3, 5]] * 2), np.zeros((2, 4), np.float32))
    assert found.relevant("base_colour").tolist() == [[False] * 4, [False, False, True, False]]


def test_missing_neighbours_count_as_misses() -> None:
    assert precision_at(np.array([[True, True]]), 5).tolist() == [0.4]


def test_an_interval_holds_the_true_mean_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    held = 0
    for seed in range(100):
        values = (random.random(80) < 0.7).astype(float)
        of_mean = interval(values, seed)
        assert of_mean.low <= of_mean.mean <= of_mean.high
        held += of_mean.low <= 0.7 <= of_mean.high
    assert held >= 88  # 95 expected; fewer than 88 happens once in 500 tries


def test_the_same_values_give_the_same_interval() -> None:
    values = np.random.default_rng(1).random(50)
    assert interval(values) == interval(values)
    assert interval(np.ones(9)) == interval(np.ones(3))


def test_a_real_difference_is_significant_and_chance_is_not() -> None:
    random = np.random.default_rng(0)
    base = random.random(400)
    assert paired_difference(base + 0.02 + 0.02 * random.normal(size=400), base).p_value < 0.001
    assert paired_difference(base + 0.3 * random.normal(size=400), base).p_value > 0.05
    equal = paired_difference(base, base)
    assert (equal.points.mean, equal.p_value) == (0, 1)


def test_classes_are_described_by_their_own_photos() -> None:
    embeddings = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    statistics, centroids = class_statistics(embeddings, np.array(["x", "x", "y"]))
    middle = np.array([0.8, 0.4]) / np.hypot(0.8, 0.4)
    assert centroids == pytest.approx(np.array([middle, [0, 1]]), abs=1e-6)
    assert [(row["name"], row["photos"]) for row in statistics] == [("x", 2), ("y", 1)]
    cosines = [middle[0], 0.6 * middle[0] + 0.8 * middle[1]]
    assert statistics[0]["mean_cosine"] == pytest.approx(sum(cosines) / 2, abs=1e-4)


def test_the_logistic_curve_is_found_again() -> None:
    random = np.random.default_rng(0)
    scores = random.uniform(0, 1, 60_000)
    relevant = random.random(60_000) < 1 / (1 + np.exp(-(9 * scores - 4)))
    assert fit_logistic(scores, relevant) == pytest.approx((9, -4), rel=0.05)


def test_what_a_score_means_is_finite_even_where_every_hit_is_right() -> None:
    photos, _ = random_photos(30)
    same = LabelledPhotos(photos.paths, photos.items, "kind", {"kind": np.full(30, "a")}, photos.splits)
    rows = np.arange(30)
    found = Found(same, rows[:4], rows[4:], np.tile(rows[4:14], (4, 1)), np.linspace(0.9, 0.1, 40).reshape(4, 10))
    meaning = calibrate_scores(found)
    assert np.isfinite([meaning["a"], meaning["b"]]).all()
    assert meaning["hits"] == 40
    assert all(row["told"] > 0.9 for row in meaning["table"])
