"""Searches of a small shop give the same hits from FAISS and from Milvus; without Milvus they fail with its code."""

from collections.abc import Sequence
from typing import Any

import pytest
import redis

from demo.ports import free_port
from shared.catalogue_change import ItemChange
from shared.queues import TaskSender, create_celery
from shared.settings import Settings
from tests.engine_bench import COLOURS, Bench, photo
from tests.integration.test_search_task import BenchServices
from worker.index.recipe import EXACT
from worker.job_tasks import add_job_tasks
from worker.milvus.connection import MilvusConnection
from worker.milvus.milvus_index import MilvusIndex

PRICES = {"red": 10, "green": 20, "blue": 30}


@pytest.fixture
def bench(settings: Settings, redis_client: redis.Redis) -> Bench:
    bench = Bench(settings, redis_client)
    with bench.catalogue.change() as change:
        change.put([ItemChange(name, name.title(), {"price": price}, None) for name, price in PRICES.items()])
    return bench


def index_of(bench: Bench, milvus: MilvusConnection) -> MilvusIndex:
    return MilvusIndex(bench.catalogue, bench.redis, milvus, f"colour {id(bench)}", bench.encoder.id, 3, EXACT)


@pytest.fixture
def indexes(bench: Bench, milvus: MilvusConnection) -> dict[str, Any]:
    in_milvus = index_of(bench, milvus)
    in_milvus.open()
    return {"faiss": bench.engine.live_index, "milvus": in_milvus}


SEARCHES: list[dict[str, Any]] = [
    {},
    {"k": 3},
    {"k": 3, "min_score": 0.6},
    {"k": 3, "min_score": 0.9999},
    {"k": 3, "filter": {"price": {"gte": 20}}},
    {"k": 3, "filter": {"not": {"price": {"gte": 20}}}},
    {"k": 3, "filter": {"price": 11}},
    {"k": 1, "crop": {"x": 0.1, "y": 0.1, "width": 0.5, "height": 0.5}},
    {"k": 3, "source": {"item_id": "red"}},
    {"k": 3, "source": {"item_id": "red"}, "filter": {"price": 10}},
]


def answers(bench: Bench, index: Any, searches: Sequence[dict[str, Any]] = SEARCHES) -> list[Any]:
    bench.engine = bench.new_engine(live_index=index)
    index.follow()
    results = [bench.search(photo(COLOURS["red"]), use_caches=False, **asked) for asked in searches]
    return [{name: result[name] for name in ("hits", "reason", "catalogue_version")} for result in results]


def rounded(results: list[Any]) -> list[Any]:
    return [
        {**result, "hits": [{**hit, "score": pytest.approx(hit["score"], abs=2e-6)} for hit in result["hits"]]}
        for result in results
    ]


def test_searches_of_a_small_shop_give_the_same_hits(bench: Bench, indexes: dict[str, Any]) -> None:
    expected = answers(bench, indexes["faiss"])
    assert [len(result["hits"]) for result in expected] == [2, 3, 1, 1, 2, 1, 0, 1, 2, 0]
    assert answers(bench, indexes["milvus"]) == rounded(expected)
    with bench.catalogue.change() as change:
        change.delete(["green"])
        change.put([ItemChange("blue", "Navy", {"price": 5.5}, None)])
    changed = answers(bench, indexes["faiss"])
    assert [len(result["hits"]) for result in changed] == [2, 2, 1, 1, 0, 2, 0, 1, 1, 0]
    assert answers(bench, indexes["milvus"]) == rounded(changed)
    with bench.catalogue.change() as change:
        change.delete(["red", "blue"])
    empty = [result["reason"] for result in answers(bench, indexes["faiss"], SEARCHES[:5])]
    assert empty == ["catalogue_empty"] * 5
    assert [result["reason"] for result in answers(bench, indexes["milvus"], SEARCHES[:5])] == empty


def test_a_result_is_kept_until_milvus_knows_the_next_change(bench: Bench, indexes: dict[str, Any]) -> None:
    red = photo(COLOURS["red"])
    bench.engine = bench.new_engine(live_index=indexes["milvus"])
    assert bench.search(red)["answered_from"] == "engine"
    assert bench.search(red)["answered_from"] == "result_cache"
    with bench.catalogue.change() as change:
        change.put([ItemChange("red", "Scarlet", {"price": 10}, None)])
    assert bench.search(red)["answered_from"] == "result_cache"
    indexes["milvus"].follow()
    fresh = bench.search(red)
    assert (fresh["answered_from"], fresh["hits"][0]["title"]) == ("embedding_cache", "Scarlet")


def test_a_search_fails_with_the_code_of_the_index_while_milvus_is_away(settings: Settings, bench: Bench) -> None:
    away = MilvusConnection(f"http://127.0.0.1:{free_port()}")
    bench.engine = bench.new_engine(live_index=index_of(bench, away))
    app = create_celery(settings, "test")
    add_job_tasks(app, BenchServices(settings, bench.engine), TaskSender(app))
    job_id = bench.job(photo(COLOURS["red"])).id
    app.tasks["search"](job_id)
    job = bench.jobs.get(job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "index_unavailable"
