"""The caches of searches that workers share, on a real Redis server."""

from collections.abc import Sequence
from itertools import combinations
from typing import cast

import numpy as np
from redis import Redis

from shared.job_record import json_bytes
from shared.result_cache import CacheEntry, ResultCache
from tests.stack import wait_until
from worker.embedding_cache import embedding_key, from_bytes, to_bytes

TTL = 500
ASKED = {"k": 10, "min_score": None, "filter": {"colour": "red", "price": {"lt": 50}}, "crop": None}
RESULT = {"hits": [{"item_id": "ä", "score": 0.5}], "reason": None}


def keep(redis: Redis, entries: Sequence[CacheEntry]) -> None:
    """Write entries as the script that ends a job does."""
    for entry in entries:
        redis.set(entry.key, entry.value, ex=entry.ttl_seconds)


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
    keep(redis_client, cache.entries(key, json_bytes(RESULT)))
    assert cache.get(cache.key("release", 7, "sha256:abc", dict(reversed(ASKED.items())))) == RESULT
    assert all_keys_expire(redis_client)
    expire_all(redis_client)
    assert cache.get(key) is None


def test_a_process_that_remembers_answers_asks_redis_once(redis_client: Redis) -> None:
    cache = ResultCache(redis_client, TTL, remembered=1)
    keep(redis_client, [CacheEntry(f"lookalike:result:{name}", json_bytes(RESULT), TTL) for name in "ab"])
    assert cache.get("lookalike:result:a") == RESULT
    expire_all(redis_client)
    assert cache.get("lookalike:result:a") == RESULT
    assert cache.get("lookalike:result:b") is None


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


def test_an_embedding_is_known_by_photo_crop_and_encoder() -> None:
    crop = {"x": 0.1, "y": 0.0, "width": 0.5, "height": 1.0}
    keys = [
        embedding_key("encoder-1", "abc", None),
        embedding_key("encoder-1", "abc", crop),
        embedding_key("encoder-1", "abc", {**crop, "x": 0.2}),
        embedding_key("encoder-1", "abd", None),
        embedding_key("encoder-2", "abc", None),
    ]
    assert all(one != other for one, other in combinations(keys, 2))
    assert embedding_key("encoder-1", "abc", dict(reversed(crop.items()))) == keys[1]


def test_an_embedding_comes_back_from_redis_as_it_was(redis_client: Redis) -> None:
    embedding = np.random.default_rng(1).standard_normal((1, 256)).astype(np.float32)
    redis_client.set("key", to_bytes(embedding))
    found = from_bytes(cast("bytes", redis_client.get("key")))
    np.testing.assert_array_equal(found, embedding)
    assert (found.dtype, found.shape) == (np.dtype(np.float32), (1, 256))
    found[0, 0] = 5  # a caller may change its own copy


def test_no_answer_is_kept_or_found_when_its_time_is_zero(redis_client: Redis) -> None:
    keep(redis_client, ResultCache(redis_client, TTL).entries("lookalike:result:a", json_bytes(RESULT)))
    results = ResultCache(redis_client, 0)
    assert results.get("lookalike:result:a") is None
    assert not results.entries("lookalike:result:b", json_bytes(RESULT))
