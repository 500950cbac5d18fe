import numpy as np
import pytest

from worker.encoder.gate import compare, precision


def unit_rows(count: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    normalised: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normalised


def towards(rows: np.ndarray, other: np.ndarray, cosine: float) -> np.ndarray:
    """Return unit rows of this cosine with `rows`, turned towards `other`."""
    across = other - (other * rows).sum(axis=1, keepdims=True) * rows
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    turned: np.ndarray = (cosine * rows + np.sqrt(1 - cosine**2) * across).astype(np.float32)
    return turned


def precision_by_loop(embeddings: np.ndarray, labels: list[str]) -> float:
    values = []
    for i, label in enumerate(labels):
        if labels.count(label) < 2:
            continue
        others = sorted((j for j in range(len(labels)) if j != i), key=lambda j: -float(embeddings[i] @ embeddings[j]))
        values.append(np.mean([labels[j] == label for j in others[:5]]))
    return float(np.mean(values))


@pytest.mark.parametrize("count", [3, 5, 6, 40])
def test_precision_is_what_a_loop_over_all_pairs_gives(count: int) -> None:
    embeddings = unit_rows(count)
    labels = [f"kind {i % 7 if i else 'alone'}" for i in range(count - 1)] + ["kind 1"]
    expected = precision_by_loop(embeddings, labels)
    assert 0 < expected < 1
    assert precision(embeddings, labels) == pytest.approx(expected)


def test_precision_of_labels_that_all_differ_is_none() -> None:
    assert precision(unit_rows(4), ["a", "b", "c", "d"]) is None


def test_the_same_embeddings_pass_everything() -> None:
    rows = unit_rows(30)
    accuracy = compare(rows, rows, ["a", "b", "c"] * 10)
    assert accuracy.mean_cosine == pytest.approx(1)
    assert accuracy.precision == accuracy.reference_precision
    assert accuracy.failures(is_int8=False, same_id=True) == []


@pytest.mark.parametrize(
    ("cosine", "is_int8", "same_id", "failing"),
    [
        (0.981, True, False, None),
        (0.979, True, False, "mean cosine 0.9790 is below 0.98"),
        (0.996, False, False, None),
        (0.994, False, False, "mean cosine 0.9940 is below 0.995"),
        (0.99995, False, True, None),
        (0.9998, False, True, "smallest cosine 0.9998.. is not above 0.9999"),
    ],
)
def test_each_kind_of_runtime_has_its_own_smallest_cosine(
    cosine: float, is_int8: bool, same_id: bool, failing: str | None
) -> None:
    reference = unit_rows(50)
    failures = compare(towards(reference, unit_rows(50, seed=1), cosine), reference, None).failures(
        is_int8=is_int8, same_id=same_id
    )
    if failing is None:
        assert failures == []
    else:
        with pytest.raises(AssertionError, match=failing):
            raise AssertionError(failures)


def test_one_bad_image_fails_a_runtime_that_shares_the_id() -> None:
    reference = unit_rows(1000)
    embeddings = reference.copy()
    embeddings[7] = towards(reference[7:8], reference[8:9], 0.99)
    accuracy = compare(embeddings, reference, None)
    assert accuracy.mean_cosine > 0.9999
    assert "smallest cosine 0.99" in accuracy.failures(is_int8=False, same_id=True)[0]


def test_lower_precision_fails_although_the_cosine_is_fine() -> None:
    centres = np.repeat(unit_rows(2, dim=64), 20, axis=0)
    reference = towards(centres, unit_rows(40, dim=64, seed=1), 0.99)
    crossing = reference.copy()
    crossing[:4] = reference[20:24]
    accuracy = compare(crossing, reference, ["a"] * 20 + ["b"] * 20)
    assert accuracy.reference_precision == 1
    assert any("Precision@5 is" in failure for failure in accuracy.failures(is_int8=True, same_id=False))


def test_rows_that_are_not_of_norm_one_fail() -> None:
    rows = unit_rows(10)
    for wrong in (rows * 1.01, np.full_like(rows, np.nan)):
        assert compare(wrong, rows, None).failures(is_int8=True, same_id=False)


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one held-out image"):
        compare(unit_rows(0), unit_rows(0), None)
