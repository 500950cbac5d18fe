"""Answers to near-identical photos, in the memory of one process."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.stack import wait_until
from worker.index.vector_index import Vectors
from worker.similar_cache import SimilarCache

DIM = 256
TTL = 500
RESULT: dict[str, Any] = {"hits": [{"item_id": "ä", "score": 0.5}], "reason": None}
SCOPE = (7, "k=10")


def unit(seed: int) -> Vectors:
    vector = np.random.default_rng(seed).standard_normal((1, DIM))
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def at_cosine(vector: Vectors, cosine: float, seed: int = 99) -> Vectors:
    """Return a unit vector at a cosine from another one, in a random direction."""
    base = vector.astype(np.float64)
    aside = np.random.default_rng(seed).standard_normal((1, DIM))
    aside -= (aside @ base.T) * base / (base @ base.T)
    aside /= np.linalg.norm(aside)
    return (cosine * base + np.sqrt(1 - cosine**2) * aside).astype(np.float32)


@pytest.mark.parametrize(("cosine", "is_found"), [(0.9999, True), (0.9952, True), (0.9948, False), (0.95, False)])
def test_a_similar_photo_is_one_whose_cosine_reaches_the_threshold(cosine: float, is_found: bool) -> None:
    cache = SimilarCache(DIM, 0.995, TTL)
    for seed in range(40):
        cache.put(SCOPE, unit(seed), {"seed": seed})
    for seed in range(40):
        assert cache.get(SCOPE, at_cosine(unit(seed), cosine, seed)) == ({"seed": seed} if is_found else None)


def test_the_most_similar_answer_is_given() -> None:
    cache, asked = SimilarCache(DIM, 0.9, TTL), unit(1)
    for cosine in (0.999, 0.99999, 0.998):
        cache.put(SCOPE, at_cosine(asked, cosine), {"cosine": cosine})
    assert cache.get(SCOPE, asked) == {"cosine": 0.99999}


@pytest.mark.parametrize("min_cosine", [0.99999999, 1.0])
def test_bug_the_same_embedding_is_found_even_where_only_equal_ones_count(min_cosine: float) -> None:
    cache = SimilarCache(DIM, min_cosine, TTL)
    rounded = unit(1) * np.float32(0.9999999)  # as networks give them: the product with itself is just below 1
    cache.put(SCOPE, rounded, RESULT)
    assert float(rounded[0] @ rounded[0]) < 1
    assert cache.get(SCOPE, rounded.copy()) == RESULT
    assert cache.get(SCOPE, at_cosine(unit(1), 0.9999)) is None


@pytest.mark.parametrize("min_cosine", [0.9, 1.0])
@pytest.mark.parametrize("other", [(8, "k=10"), (7, "k=11")], ids=["catalogue", "parameters"])
def test_an_answer_holds_in_its_own_scope_alone(other: tuple[int, str], min_cosine: float) -> None:
    cache = SimilarCache(DIM, min_cosine, TTL)
    cache.put(other, unit(2), {"of": "other"})
    cache.put(SCOPE, unit(1), RESULT)
    assert cache.get(SCOPE, unit(1)) == RESULT
    assert cache.get(other, unit(1)) is None
    assert cache.get(SCOPE, unit(2)) is None


def test_the_newest_answers_are_kept() -> None:
    cache = SimilarCache(DIM, 0.9, TTL, entries=3)
    for seed in range(5):
        cache.put((seed,), unit(seed), {"seed": seed})
    assert [cache.get((seed,), unit(seed)) for seed in range(5)] == [None, None, {"seed": 2}, {"seed": 3}, {"seed": 4}]


def test_a_newer_answer_to_the_same_photo_outlives_the_older_one() -> None:
    cache = SimilarCache(DIM, 1.0, TTL, entries=3)
    cache.put(SCOPE, unit(1), {"number": 0})
    cache.put(SCOPE, unit(2), {"number": 1})
    cache.put(SCOPE, unit(1), {"number": 2})
    cache.put(SCOPE, unit(3), {"number": 3})
    assert cache.get(SCOPE, unit(1)) == {"number": 2}
    cache.put(SCOPE, unit(4), {"number": 4})
    cache.put(SCOPE, unit(5), {"number": 5})
    assert cache.get(SCOPE, unit(1)) is None


@pytest.mark.parametrize("min_cosine", [0.9, 1.0])
def test_an_answer_is_not_given_after_its_time(min_cosine: float) -> None:
    cache = SimilarCache(DIM, min_cosine, 0.1)
    cache.put(SCOPE, unit(1), RESULT)
    wait_until(lambda: cache.get(SCOPE, unit(1)) is None, 20, "the answer expires")


def test_nothing_is_kept_when_its_time_is_zero() -> None:
    cache = SimilarCache(DIM, 0.9, 0)
    cache.put(SCOPE, unit(1), RESULT)
    assert cache.get(SCOPE, unit(1)) is None


def test_threads_that_share_it_never_get_an_answer_of_another_photo() -> None:
    cache = SimilarCache(DIM, 0.99, TTL, entries=16)
    photos = [unit(seed) for seed in range(64)]

    def work(thread: int) -> int:
        found = 0
        for step in range(400):
            number = (thread * 7 + step) % len(photos)
            answer = cache.get((number % 2,), photos[number])
            assert answer in (None, {"number": number})
            found += answer is not None
            cache.put((number % 2,), photos[number], {"number": number})
        return found

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) > 0
