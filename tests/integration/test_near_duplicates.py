"""Near-duplicates among items, against all pairs one by one."""

import numpy as np
import pytest
import redis

import worker.imports.near_duplicates
from shared.settings import Settings
from tests.vector_shop import VectorShop, random_vectors, unit
from worker.imports.near_duplicates import CannotCompare, find_near_duplicates

THINGS = 200


@pytest.fixture
def shop(settings: Settings, redis_client: redis.Redis) -> VectorShop:
    """Things of which some are there twice, with one or two images each."""
    shop = VectorShop(settings, redis_client)
    things, noise = random_vectors(THINGS), random_vectors(2 * THINGS, seed=1)
    items: dict[str, list[np.ndarray]] = {}
    for number, thing in enumerate(things):
        items[f"a{number}"] = [thing] if number % 3 else [thing, noise[number]]
        if number % 4 == 0:
            items[f"b{number}"] = [unit(thing + 0.03 * noise[THINGS + number])]
    shop.put(items)
    return shop


def pairs_by_loop(shop: VectorShop, min_cosine: float) -> dict[str, tuple[str, float]]:
    pairs = {}
    for item_id in shop.vectors:
        other, score = next(iter(shop.scores(item_id).items()))
        if score >= min_cosine:
            pairs[item_id] = (other, score)
    return pairs


@pytest.mark.parametrize("min_cosine", [0.95, 0.99])
def test_each_item_with_a_near_duplicate_is_counted_and_the_first_are_named(
    shop: VectorShop, min_cosine: float
) -> None:
    engine = shop.engine()
    engine.live_index.refresh()
    expected = pairs_by_loop(shop, min_cosine)
    assert 20 < len(expected) < len(shop.vectors)

    found = find_near_duplicates(shop.vectors, len(shop.vectors), engine.live_index, min_cosine, lambda: True)
    assert found is not None
    assert (found.known, found.count) == (len(shop.vectors), len(expected))
    assert [pair.item_id for pair in found.pairs] == list(expected)[:100]
    for pair in found.pairs:
        other, score = expected[pair.item_id]
        assert pair.duplicate_of == other
        assert pair.score == pytest.approx(score, abs=2e-6)


def test_equal_embeddings_are_near_duplicates_at_a_threshold_of_1(shop: VectorShop) -> None:
    vector = random_vectors(1, seed=7)[0]
    shop.put({"one": [vector], "two": [vector]})
    engine = shop.engine()
    engine.live_index.refresh()
    found = find_near_duplicates(["one", "a1", "gone"], 3, engine.live_index, 1.0, lambda: True)
    assert found is not None
    assert (found.known, found.count) == (2, 1)
    assert [(pair.item_id, pair.duplicate_of, pair.score) for pair in found.pairs] == [("one", "two", 1.0)]


def test_the_other_images_of_an_item_are_no_duplicates_of_it(settings: Settings, redis_client: redis.Redis) -> None:
    shop = VectorShop(settings, redis_client)
    vector, other = random_vectors(2)
    shop.put({"a": [vector] * 3, "b": [other]})
    engine = shop.engine()
    engine.live_index.refresh()
    found = find_near_duplicates(["a", "b"], 2, engine.live_index, 0.99, lambda: True)
    assert found is not None
    assert (found.known, found.count, found.pairs) == (2, 0, [])


def test_an_item_that_is_alone_has_no_duplicate(settings: Settings, redis_client: redis.Redis) -> None:
    shop = VectorShop(settings, redis_client)
    shop.put({"a": list(random_vectors(2))})
    engine = shop.engine()
    engine.live_index.refresh()
    found = find_near_duplicates(["a"], 1, engine.live_index, 0.5, lambda: True)
    assert found is not None
    assert (found.known, found.count) == (1, 0)


def test_who_is_not_to_go_on_stops(shop: VectorShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.imports.near_duplicates, "ITEMS_AT_ONCE", 10)
    engine = shop.engine()
    engine.live_index.refresh()
    asked: list[None] = []

    def goes_on() -> bool:
        asked.append(None)
        return len(asked) < 3

    assert find_near_duplicates(shop.vectors, len(shop.vectors), engine.live_index, 0.9, goes_on) is None
    assert len(asked) == 3


def test_what_would_take_hours_is_not_begun(shop: VectorShop) -> None:
    engine = shop.engine()
    engine.live_index.refresh()
    with pytest.raises(CannotCompare, match="recall target"):
        find_near_duplicates(shop.vectors, 10**11, engine.live_index, 0.9, lambda: True)
