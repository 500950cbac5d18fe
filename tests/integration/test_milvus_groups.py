"""Groups and near-duplicates are the same from Milvus as from FAISS, which other tests hold against explicit loops."""

from typing import Any

import pytest
import redis

import worker.groups
from shared.result_cache import asked_of
from shared.schemas import SearchParameters
from shared.settings import Settings
from tests.vector_shop import DIM, VectorShop, random_vectors, unit
from worker.imports.near_duplicates import NearDuplicates, find_near_duplicates
from worker.index.recipe import EXACT
from worker.item_index import ItemIndex
from worker.milvus.collection import ReleaseCollection
from worker.milvus.connection import MilvusConnection
from worker.milvus.milvus_index import MilvusIndex

QUERY = "t0-0"


@pytest.fixture
def shop(settings: Settings, redis_client: redis.Redis) -> VectorShop:
    """Things with one to six nearly equal photos under different ids, of few brands; some photos are of one item."""
    shop = VectorShop(settings, redis_client)
    things, noise = random_vectors(40, seed=3), random_vectors(400, seed=4)
    items = {
        f"t{number}-{copy}": [unit(thing + 0.02 * noise[number * 6 + copy])]
        for number, thing in enumerate(things)
        for copy in range(number % 6 + 1)
    }
    for number in range(0, 40, 5):
        items[f"t{number}-0"] += [unit(things[number] + 0.01 * noise[300 + number + turn]) for turn in range(12)]
    brands = {item_id: f"brand {place % 5}" for place, item_id in enumerate(items) if place % 9}
    prices = {item_id: float(place % 7) for place, item_id in enumerate(items)}
    on_sale = {item_id: place % 2 == 0 for place, item_id in enumerate(items)}
    shop.put(items, brand=brands, price=prices, on_sale=on_sale)
    return shop


@pytest.fixture
def in_milvus(shop: VectorShop, milvus: MilvusConnection) -> MilvusIndex:
    index = MilvusIndex(shop.catalogue, shop.redis, milvus, f"groups {id(shop)}", shop.encoder.id, DIM, EXACT)
    index.open()
    return index


def hits(shop: VectorShop, index: ItemIndex[Any] | None, **terms: Any) -> list[tuple[str, Any]]:
    engine = shop.engine(min_cosine=0.99, live_index=index)
    engine.live_index.follow()
    asked = asked_of(SearchParameters(**terms).model_dump(mode="json"))
    found, _ = engine.find(engine.item_queries([QUERY])[QUERY], asked)
    return [(hit["item_id"], pytest.approx(hit["score"], abs=2e-6)) for hit in found]


@pytest.mark.parametrize("most_read", [2000, 8], ids=["deeper", "without full groups"])
@pytest.mark.parametrize("group_by", ["brand", "price", "on_sale", "@duplicates"])
@pytest.mark.parametrize("condition", [None, {"price": {"lt": 5}}, {"not": {"brand": "brand 1"}}])
def test_groups_are_those_of_faiss(
    shop: VectorShop,
    in_milvus: MilvusIndex,
    monkeypatch: pytest.MonkeyPatch,
    group_by: str,
    condition: dict[str, Any] | None,
    most_read: int,
) -> None:
    monkeypatch.setattr(worker.groups.ByAttribute, "deepest", most_read)
    for k, per_group in ((1, 1), (5, 2), (30, 1), (100, 3)):
        terms = {"group_by": group_by, "k": k, "per_group": per_group, "filter": condition}
        expected = hits(shop, None, **terms)
        assert expected
        assert hits(shop, in_milvus, **terms) == expected


def near_duplicates(shop: VectorShop, index: ItemIndex[Any] | None) -> tuple[NearDuplicates, list[Any]]:
    live = shop.engine(live_index=index).live_index
    live.follow()
    found = find_near_duplicates(shop.vectors, len(shop.vectors), live, 0.99, lambda: True)
    assert found is not None
    return found, [(pair.item_id, pair.duplicate_of, pytest.approx(pair.score, abs=2e-6)) for pair in found.pairs]


def test_near_duplicates_are_those_of_faiss_though_items_have_many_images_and_calls_carry_few(
    shop: VectorShop, in_milvus: MilvusIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReleaseCollection, "vectors_at_once", 7)
    expected, expected_pairs = near_duplicates(shop, None)
    assert 50 < expected.count < len(shop.vectors)
    found, pairs = near_duplicates(shop, in_milvus)
    assert (found.known, found.count, pairs) == (expected.known, expected.count, expected_pairs)


def test_an_item_that_was_deleted_is_no_near_duplicate_though_milvus_has_it_still(
    shop: VectorShop, in_milvus: MilvusIndex
) -> None:
    in_milvus.follow()
    with shop.catalogue.change() as change:
        change.delete(["t1-0"])
    in_milvus._hits.clear()
    owners, embeddings = in_milvus.images_of(["t1-1"])
    (other,) = in_milvus.nearest_others(owners, embeddings)
    assert other is not None
    assert other[0] != "t1-0"
