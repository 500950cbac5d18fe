"""The three caches of searches, on a real Redis server."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from redis import Redis

from shared.result_cache import ResultCache
from tests.stack import wait_until
from worker.embedding_cache import EmbeddingCache
from worker.index.vector_index import Vectors
from worker.similar_cache import CANDIDATES, SimilarCache

DIM = 256
TTL = 500
ASKED = {"k": 10, "min_score": None, "filter": {"colour": "red", "price": {"lt": 50}}, "crop": None}
RESULT = {"hits": [{"item_id": "ä", "score": 0.5}], "reason": None}
SCOPE = SimilarCache.scope("release", 7, ASKED)


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


def expire_all(redis: Redis) -> None:
    for key in redis.keys("*"):
        redis.pexpire(key, 1)
    wait_until(lambda: redis.dbsize() == 0, 20, "keys expire")


def all_keys_expire(redis: Redis) -> bool:
    keys = redis.keys("*")
    return bool(keys) and all(TTL - 60 < redis.ttl(key) <= TTL for key in keys)


def test_an_answer_is_known_for_the_same_question_however_it_is_written(redis_client: Redis) -> None:
    cache = ResultCache(redis_client, TTL)
    key = cache.key("release", 7, "sha256:abc", ASKED)
    assert cache.get(key) is None
    cache.put(key, RESULT)
    assert cache.get(cache.key("release", 7, "sha256:abc", dict(reversed(ASKED.items())))) == RESULT
    assert all_keys_expire(redis_client)
    expire_all(redis_client)
    assert cache.get(key) is None


def test_every_part_of_a_question_counts() -> None:
    keys = [
        ResultCache.key("release", 7, "sha256:abc", ASKED),
        ResultCache.key("release2", 7, "sha256:abc", ASKED),
        ResultCache.key("release", 8, "sha256:abc", ASKED),
        ResultCache.key("release", 7, "sha256:abd", ASKED),
        ResultCache.key("release", 7, "item:abc", ASKED),
        *(
            ResultCache.key("release", 7, "sha256:abc", {**ASKED, **other})
            for other in ({"k": 11}, {"min_score": 0.0}, {"filter": None}, {"crop": {"x": 0}}, {"filter": {"a": "1"}})
        ),
        ResultCache.key("release", 7, "sha256:abc", {**ASKED, "filter": {"a": 1}}),
    ]
    assert all(one != other for one, other in combinations(keys, 2))


def test_an_embedding_is_known_by_photo_crop_and_encoder(redis_client: Redis) -> None:
    cache, embedding = EmbeddingCache(redis_client, "encoder-1", TTL), unit(1)
    crop = {"x": 0.1, "y": 0.0, "width": 0.5, "height": 1.0}
    cache.put("abc", None, embedding)
    cache.put("abc", crop, unit(2))
    found = cache.get("abc", None)
    assert found is not None
    np.testing.assert_array_equal(found, embedding)
    assert found.dtype == np.dtype(np.float32)
    assert found.shape == (1, DIM)
    found[0, 0] = 5  # a caller may change its own copy
    np.testing.assert_array_equal(cache.get("abc", dict(reversed(crop.items()))), unit(2))
    assert cache.get("abd", None) is None
    assert cache.get("abc", {**crop, "x": 0.2}) is None
    assert EmbeddingCache(redis_client, "encoder-2", TTL).get("abc", None) is None
    assert all_keys_expire(redis_client)
    expire_all(redis_client)
    assert cache.get("abc", None) is None


def test_no_cache_keeps_or_finds_anything_when_its_time_is_zero(redis_client: Redis) -> None:
    ResultCache(redis_client, TTL).put("lookalike:result:a", RESULT)
    EmbeddingCache(redis_client, "encoder", TTL).put("abc", None, unit(1))
    SimilarCache(redis_client, DIM, 0.9, TTL).put(SCOPE, unit(1), RESULT)
    keys = redis_client.dbsize()
    results, embeddings = ResultCache(redis_client, 0), EmbeddingCache(redis_client, "encoder", 0)
    similar = SimilarCache(redis_client, DIM, 0.9, 0)
    assert results.get("lookalike:result:a") is None
    assert embeddings.get("abc", None) is None
    assert similar.get(SCOPE, unit(1)) is None
    results.put("lookalike:result:b", RESULT)
    embeddings.put("abd", None, unit(2))
    similar.put(SCOPE, unit(2), RESULT)
    assert redis_client.dbsize() == keys


@pytest.mark.parametrize(("cosine", "is_found"), [(0.9999, True), (0.9952, True), (0.9948, False), (0.95, False)])
def test_a_similar_photo_is_one_whose_cosine_reaches_the_threshold(
    redis_client: Redis, cosine: float, is_found: bool
) -> None:
    strict, lax = SimilarCache(redis_client, DIM, 0.995, TTL), SimilarCache(redis_client, DIM, 0.5, TTL)
    shared_buckets = 0
    for seed in range(40):
        stored, asked = unit(seed), at_cosine(unit(seed), cosine, seed)
        scope = SimilarCache.scope("release", seed, ASKED)
        strict.put(scope, stored, {**RESULT, "seed": seed})
        if lax.get(scope, asked) is None:
            continue  # they share no bucket
        shared_buckets += 1
        found = strict.get(scope, asked)
        assert found == ({**RESULT, "seed": seed} if is_found else None)
    assert shared_buckets >= (30 if cosine > 0.99 else 5), "the bucket alone would have found these"


def test_nearly_all_photos_at_the_threshold_share_a_bucket(redis_client: Redis) -> None:
    """0.97 of them, says the module's head."""
    cache = SimilarCache(redis_client, DIM, 0.9, TTL)
    found = 0
    for seed in range(200):
        scope = SimilarCache.scope("release", seed, ASKED)
        cache.put(scope, unit(seed), RESULT)
        found += cache.get(scope, at_cosine(unit(seed), 0.995, seed)) is not None
    assert 0.92 <= found / 200 < 1


def test_bug_the_same_embedding_is_found_even_where_only_equal_ones_count(redis_client: Redis) -> None:
    cache = SimilarCache(redis_client, DIM, 1.0, TTL)
    rounded = unit(1) * np.float32(0.9999999)  # as networks give them: the product with itself is just below 1
    cache.put(SCOPE, rounded, RESULT)
    assert float(rounded[0] @ rounded[0]) < 1
    assert cache.get(SCOPE, rounded) == RESULT
    assert cache.get(SCOPE, at_cosine(unit(1), 0.9999)) is None


@pytest.mark.parametrize(
    "other",
    [("release2", 7, ASKED), ("release", 8, ASKED), ("release", 7, {**ASKED, "k": 11})],
    ids=["release", "catalogue", "parameters"],
)
def test_an_answer_holds_in_its_own_scope_alone(redis_client: Redis, other: tuple[str, int, dict[str, Any]]) -> None:
    cache = SimilarCache(redis_client, DIM, 0.9, TTL)
    cache.put(SCOPE, unit(1), RESULT)
    assert cache.get(SCOPE, unit(1)) == RESULT
    assert cache.get(SimilarCache.scope(*other), unit(1)) is None


def test_another_process_finds_what_this_one_kept(redis_client: Redis) -> None:
    SimilarCache(redis_client, DIM, 0.995, TTL).put(SCOPE, unit(1), RESULT)
    assert SimilarCache(redis_client, DIM, 0.995, TTL).get(SCOPE, unit(1)) == RESULT


def test_the_most_similar_answer_is_given(redis_client: Redis) -> None:
    cache, asked = SimilarCache(redis_client, DIM, 0.9, TTL), unit(1)
    for cosine in (0.999, 0.99999, 0.998):
        cache.put(SCOPE, at_cosine(asked, cosine), {"cosine": cosine})
    assert cache.get(SCOPE, asked) == {"cosine": 0.99999}


def test_a_bucket_keeps_the_newest_answers_and_all_of_it_expires(redis_client: Redis) -> None:
    cache = SimilarCache(redis_client, DIM, 0.9, TTL)
    for number in range(CANDIDATES + 5):
        cache.put(SCOPE, unit(1), {"number": number})
    buckets = redis_client.keys(f"lookalike:similar:{SCOPE}:*")
    assert {redis_client.llen(key) for key in buckets} == {CANDIDATES}
    found = cache.get(SCOPE, unit(1))
    assert found is not None
    assert found["number"] >= 5
    assert all_keys_expire(redis_client)
    for key in redis_client.keys("lookalike:similar:entry:*"):
        redis_client.delete(key)
    assert cache.get(SCOPE, unit(1)) is None, "an entry may expire before the bucket that names it"
    expire_all(redis_client)
    assert cache.get(SCOPE, unit(1)) is None
