"""Hits in groups, against an explicit loop over all items."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import redis

import worker.groups
from shared.errors import UnknownFilterField
from shared.result_cache import asked_of
from shared.schemas import SearchParameters
from shared.settings import Settings
from tests.vector_shop import VectorShop, random_vectors, unit

ITEMS = 400
BRANDS = ("Aldo", "Berg", "Cato")
QUERY = "i0"


@pytest.fixture
def shop(settings: Settings, redis_client: redis.Redis) -> VectorShop:
    """Many items of few brands, the nearest ones all of one; some without a brand, some with two images."""
    shop = VectorShop(settings, redis_client)
    vectors = random_vectors(ITEMS + 40)
    items = {f"i{number}": [vectors[number]] for number in range(ITEMS)}
    for number in range(40):
        items[f"i{number * 9}"].append(vectors[ITEMS + number])
    order = sorted(items, key=lambda item_id: -max(float(np.dot(vectors[0], vector)) for vector in items[item_id]))
    brands = {item_id: BRANDS[min(place // 90, 2)] for place, item_id in enumerate(order) if place % 50 != 30}
    shop.put(
        items,
        brand=brands,
        price={item_id: float(place % 7) for place, item_id in enumerate(order)},
        on_sale={item_id: place % 2 == 0 for place, item_id in enumerate(order)},
    )
    return shop


def found(shop: VectorShop, item_id: str = QUERY, min_cosine: float = 1.0, **terms: Any) -> list[str]:
    engine = shop.engine(min_cosine)
    engine.live_index.refresh()
    asked = asked_of(SearchParameters(**terms).model_dump(mode="json"))
    hits, reason = engine.find(engine.item_queries([item_id])[item_id], asked)
    assert (reason is None) == bool(hits)
    assert [hit["rank"] for hit in hits] == list(range(1, len(hits) + 1))
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    return [hit["item_id"] for hit in hits]


def by_loop(shop: VectorShop, group_of: Callable[[str], Any], k: int, per_group: int, allowed: Any = None) -> list[str]:
    """Return the hits as the definition has them."""
    taken: list[str] = []
    sizes = Counter[Any]()
    for item_id in shop.scores(QUERY):
        if allowed is not None and not allowed(shop.attributes[item_id]):
            continue
        group = group_of(item_id)
        if sizes[group] < per_group and len(taken) < k:
            sizes[group] += 1
            taken.append(item_id)
    return taken


@pytest.mark.parametrize("most_read", [2000, 12], ids=["deeper", "without full groups"])
@pytest.mark.parametrize("name", ["brand", "price", "on_sale"])
@pytest.mark.parametrize(("k", "per_group"), [(1, 1), (2, 1), (5, 2), (10, 1), (12, 3), (100, 100)])
def test_of_each_value_the_best_items_are_hits_and_an_item_without_one_stands_alone(
    shop: VectorShop, monkeypatch: pytest.MonkeyPatch, name: str, k: int, per_group: int, most_read: int
) -> None:
    monkeypatch.setattr(worker.groups.ByAttribute, "deepest", most_read)

    def group_of(item_id: str) -> Any:
        return shop.attributes[item_id].get(name, ("alone", item_id))

    expected = by_loop(shop, group_of, k, per_group)
    assert found(shop, group_by=name, k=k, per_group=per_group) == expected
    groups = len({group_of(item_id) for item_id in shop.vectors})
    assert len(expected) == min(k, groups * per_group) or per_group > 1


@pytest.mark.parametrize("k", [3, 20])
def test_groups_hold_only_what_a_filter_lets_through(shop: VectorShop, k: int) -> None:
    condition = {"price": {"lt": 3}, "on_sale": True}
    expected = by_loop(
        shop,
        lambda item_id: shop.attributes[item_id].get("brand", item_id),
        k,
        2,
        lambda attributes: attributes["price"] < 3 and attributes["on_sale"],
    )
    assert found(shop, filter=condition, group_by="brand", per_group=2, k=k) == expected


def test_k_hits_come_though_thousands_of_nearer_items_are_of_one_group(
    settings: Settings, redis_client: redis.Redis
) -> None:
    shop = VectorShop(settings, redis_client)
    near = unit(np.array([1.0] + [0.0] * 7) + 0.1 * random_vectors(2500, seed=1))
    far = random_vectors(9, seed=2)
    items = {f"near{number}": [vector] for number, vector in enumerate(near)}
    items |= {f"far{number}": [vector] for number, vector in enumerate(far)}
    shop.put(items, shelf={item_id: "near" if item_id.startswith("near") else item_id for item_id in items})
    hits = found(shop, "near0", group_by="shelf", k=10)
    assert len(hits) == 10
    assert sum(item_id.startswith("near") for item_id in hits) == 1


def test_a_group_goes_no_deeper_than_the_least_score(shop: VectorShop) -> None:
    scores = shop.scores(QUERY)
    least = sorted(scores.values())[-40]
    hits = found(shop, group_by="brand", per_group=5, k=100, min_score=least)
    expected = [
        item_id
        for item_id in by_loop(shop, lambda item_id: shop.attributes[item_id].get("brand", item_id), 100, 5)
        if scores[item_id] >= least
    ]
    assert hits == expected
    assert 5 <= len(hits) < 20


@pytest.fixture
def copies(settings: Settings, redis_client: redis.Redis) -> VectorShop:
    """Things with one to six nearly equal photos each, under different ids."""
    shop = VectorShop(settings, redis_client)
    things = random_vectors(60, seed=3)
    noise = random_vectors(600, seed=4)
    items = {}
    for number, thing in enumerate(things):
        for copy in range(number % 6 + 1):
            items[f"t{number}-{copy}"] = [unit(thing + 0.02 * noise[number * 6 + copy])]
    shop.put({QUERY: [things[0]], **items})
    return shop


@pytest.mark.parametrize(("k", "per_group"), [(1, 1), (10, 1), (30, 1), (100, 1), (20, 3)])
def test_of_things_that_look_nearly_the_same_the_best_are_hits(copies: VectorShop, k: int, per_group: int) -> None:
    leaders: list[str] = []

    def group_of(item_id: str) -> str:
        for leader in leaders:
            if float(np.dot(copies.vectors[leader][0], copies.vectors[item_id][0])) >= 0.99:
                return leader
        leaders.append(item_id)
        return item_id

    expected = by_loop(copies, group_of, k, per_group)
    hits = found(copies, min_cosine=0.99, group_by="@duplicates", k=k, per_group=per_group)
    assert hits == expected
    assert len(hits) == (k if k < 60 else 60)
    if per_group == 1:
        assert len({item_id.partition("-")[0] for item_id in hits}) == len(hits)


def test_without_a_calibrated_threshold_only_equal_photos_make_a_group(
    settings: Settings, redis_client: redis.Redis
) -> None:
    shop = VectorShop(settings, redis_client)
    one, other, query = random_vectors(3, seed=5)
    shop.put({"a": [one], "b": [one], "c": [one], "d": [unit(one + 0.05 * other)], QUERY: [query]})
    hits = found(shop, min_cosine=1.0, group_by="@duplicates")
    assert sorted(hits)[-1] == "d"
    assert len(hits) == 2


def test_a_group_that_no_item_has_is_refused_as_an_unknown_field_is(shop: VectorShop) -> None:
    for name in ("colour", "@dupes"):
        with pytest.raises(UnknownFilterField) as refused:
            found(shop, group_by=name)
        assert refused.value.members["known_fields"] == ["brand", "on_sale", "price"]


def test_the_key_of_a_plain_search_knows_nothing_of_groups() -> None:
    plain = SearchParameters(k=3).model_dump(mode="json")
    assert asked_of(plain) == {"k": 3, "min_score": None, "filter": None, "crop": None}
    assert asked_of({"k": 3, "min_score": None, "filter": None, "crop": None}) == asked_of(plain), (
        "of before an upgrade"
    )
    grouped = asked_of(SearchParameters(group_by="brand", per_group=2).model_dump(mode="json"))
    assert (grouped["group_by"], grouped["per_group"]) == ("brand", 2)
