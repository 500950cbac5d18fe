"""The engine with a real Redis, a real catalogue and a small encoder: what is computed once, and what not at all."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Semaphore
from threading import enumerate as enumerate_threads
from typing import Any

import pytest
import redis

from shared.errors import BrokenImage, LookalikeError
from shared.settings import Settings
from tests.conftest import make_settings
from tests.engine_bench import COLOURS, SECONDS, Bench, photo
from tests.servers import RedisProcess
from tests.stack import wait_until

RED, GREEN = photo(COLOURS["red"]), photo(COLOURS["green"])


@pytest.fixture
def bench(settings: Settings, redis_client: redis.Redis) -> Bench:
    return Bench(settings, redis_client)


def ids_of(result: dict[str, Any]) -> list[str]:
    return [hit["item_id"] for hit in result["hits"]]


def test_a_hundred_identical_uploads_at_once_cost_one_forward_pass(bench: Bench) -> None:
    together = Barrier(100)

    def upload(number: int) -> dict[str, Any]:
        together.wait(SECONDS)
        return bench.search(RED, k=1 + number % 3)

    with ThreadPoolExecutor(100) as pool:
        results = list(pool.map(upload, range(100)))
    assert bench.encoder.batches == [1]
    assert {ids_of(result)[0] for result in results} == {"red"}
    assert {len(result["hits"]) for result in results} == {1, 2, 3}
    assert [result["answered_from"] for result in results].count("engine") == 1


def test_different_photos_that_wait_for_the_model_share_a_forward_pass(bench: Bench) -> None:
    bench.encoder.passes = Semaphore(0)
    photos = [photo((200, 30, number)) for number in range(5)]
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(bench.search, photos[0], use_caches=False)
        wait_until(lambda: bench.encoder.batches == [1], SECONDS, "the first photo is embedded")
        others = [pool.submit(bench.search, each, use_caches=False) for each in photos[1:]]
        wait_until(lambda: len(bench.engine.embedder) == 4, SECONDS, "the others wait")
        bench.encoder.passes.release(2)
        results = [search.result(SECONDS) for search in (first, *others)]
    assert bench.encoder.batches == [1, 4]
    assert all(ids_of(result)[0] == "red" for result in results)
    assert all(result["timings_ms"]["embed"] > 0 for result in results)


def test_a_search_that_is_not_wanted_any_more_leaves_before_the_model_runs(bench: Bench) -> None:
    bench.encoder.passes = Semaphore(0)

    class GivenUp(LookalikeError):
        code = "given_up"

    def give_up() -> None:
        raise GivenUp("the client left")

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(bench.search, RED)
        wait_until(lambda: bench.encoder.batches == [1], SECONDS, "the model is busy")
        left = pool.submit(bench.search, GREEN, give_up)
        with pytest.raises(GivenUp):
            left.result(SECONDS)
        stays = pool.submit(bench.search, photo(COLOURS["blue"]))
        wait_until(lambda: len(bench.engine.embedder) >= 1, SECONDS, "another one waits")
        bench.encoder.passes.release(9)
        assert ids_of(first.result(SECONDS))[0] == "red"
        assert ids_of(stays.result(SECONDS))[0] == "blue"
    assert bench.encoder.batches == [1, 1], "the green photo was never embedded"


def test_when_the_first_of_two_equal_searches_gives_up_the_other_is_answered(bench: Bench) -> None:
    bench.encoder.passes = Semaphore(0)
    checks = Semaphore(0)

    def give_up() -> None:
        raise TimeoutError("late")

    with ThreadPoolExecutor(3) as pool:
        busy = pool.submit(bench.search, GREEN)
        wait_until(lambda: bench.encoder.batches == [1], SECONDS, "the model is busy")
        first = pool.submit(bench.search, RED, give_up)
        wait_until(lambda: len(bench.engine.embedder) == 1, SECONDS, "the first one waits")
        second = pool.submit(bench.search, RED, checks.release)
        with pytest.raises(TimeoutError, match="late"):
            first.result(SECONDS)
        bench.encoder.passes.release(9)
        assert ids_of(busy.result(SECONDS))[0] == "green"
        assert ids_of(second.result(SECONDS))[0] == "red"


def test_a_broken_photo_fails_alone_and_again(bench: Bench) -> None:
    for _ in range(2):
        with pytest.raises(BrokenImage):
            bench.search(RED[:-200])
    assert ids_of(bench.search(RED))[0] == "red"
    assert bench.encoder.batches == [1]


def test_each_cache_answers_what_it_should_and_the_next_one_knows_it(bench: Bench) -> None:
    assert bench.search(RED)["answered_from"] == "engine"
    repeated = bench.search(RED)
    assert repeated["answered_from"] == "result_cache"
    assert "embed" not in repeated["timings_ms"]
    assert bench.search(RED, k=1)["answered_from"] == "embedding_cache"
    assert bench.encoder.batches == [1]
    bench.engine = bench.new_engine()  # another worker
    assert bench.search(RED, k=1)["answered_from"] == "result_cache"
    assert bench.search(RED, k=3)["answered_from"] == "embedding_cache"
    assert bench.encoder.batches == [1]
    assert bench.search(RED, use_caches=False)["answered_from"] == "engine"
    assert bench.encoder.batches == [1, 1]


def test_a_similar_photo_is_answered_from_memory_and_then_known_by_its_own_bytes(bench: Bench) -> None:
    bench.engine = bench.new_engine(min_cosine=0.99)
    first, near = bench.search(RED), photo((202, 31, 29))
    similar = bench.search(near)
    assert similar["answered_from"] == "similar_result_cache"
    assert similar["hits"] == first["hits"]
    assert bench.search(near)["answered_from"] == "result_cache"
    assert bench.search(near, k=1)["answered_from"] == "embedding_cache"
    assert bench.search(GREEN)["answered_from"] == "engine"


def test_a_releases_own_threshold_counts_unless_a_setting_names_another(
    redis_server: RedisProcess, redis_client: redis.Redis, tmp_path: Path
) -> None:
    bench = Bench(make_settings(redis_server, tmp_path, similar_min_cosine=1.0), redis_client)
    bench.engine = bench.new_engine(min_cosine=0.99)
    bench.search(RED)
    assert bench.search(photo((202, 31, 29)))["answered_from"] == "engine"


def test_a_cold_search_asks_redis_once_and_writes_with_the_end_of_its_job(bench: Bench) -> None:
    job = bench.job(RED)
    bench.redis.config_resetstat()
    answer = bench.engine.search(job, RED, lambda: None)
    commands = {name: stat["calls"] for name, stat in bench.redis.info("commandstats").items()}
    del commands["cmdstat_config|resetstat"]
    assert commands == {"cmdstat_mget": 1}
    keys = {entry.key.split(":")[1] for entry in answer.entries}
    assert keys == {"result", "embedding"}


def test_no_cache_is_asked_or_filled_when_its_time_is_zero(
    redis_server: RedisProcess, redis_client: redis.Redis, tmp_path: Path
) -> None:
    bench = Bench(make_settings(redis_server, tmp_path, cache_ttl_seconds=0), redis_client)
    bench.engine = bench.new_engine(min_cosine=0.9)
    for _ in range(2):
        assert bench.search(RED)["answered_from"] == "engine"
    assert bench.encoder.batches == [1, 1]
    assert not redis_client.keys("lookalike:result:*") + redis_client.keys("lookalike:embedding:*")


def test_an_engine_that_nobody_uses_any_more_ends_its_thread(bench: Bench) -> None:
    bench.search(RED)

    def embedding_threads() -> int:
        return sum(thread.name == "embed" for thread in enumerate_threads())

    before = embedding_threads()
    bench.engine = bench.new_engine()
    wait_until(lambda: embedding_threads() == before, SECONDS, "the first engine's thread ends")
