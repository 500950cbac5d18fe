"""The contract of ItemIndex, kept by brute force, by LiveIndex on every kind of base that FAISS has, and by Milvus."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from shared.attributes import AttributeValue
from shared.catalogue import Catalogue
from shared.catalogue_change import ImageRef, ItemChange
from shared.errors import FilterTypeMismatch, UnknownFilterField
from tests.conftest import empty_database
from tests.faiss_kinds import DIM, unit
from tests.item_index_kinds import (
    ENCODER,
    KINDS,
    BruteForceItems,
    X,
    Y,
    at,
    delete,
    found,
    name_of,
    open_kind,
    put,
)
from worker.index.vector_index import Vectors
from worker.item_index import ItemIndex
from worker.milvus.connection import MilvusConnection

CASES = [*(("sqlite", kind) for kind in KINDS), ("postgresql", "flat"), ("postgresql", "milvus")]
# Approximate kinds compute scores from vectors in half precision.
TOLERANCE = 2e-3


@pytest.fixture(params=CASES, ids=lambda case: f"{case[1]}-{case[0]}")
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    names: tuple[str, str] = request.param
    return names


@pytest.fixture
def database_url(case: tuple[str, str], request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with empty_database(case[0], request, tmp_path) as url:
        yield url


@pytest.fixture
def index(
    case: tuple[str, str],
    catalogue: Catalogue,
    milvus: MilvusConnection,
    redis_client: redis.Redis,
    tmp_path: Path,
) -> ItemIndex[Any]:
    return open_kind(case[1], catalogue, milvus, redis_client, tmp_path)


def near(expected: Mapping[Any, float]) -> Any:
    return pytest.approx(expected, abs=TOLERANCE)


def assert_ranked(hits: dict[str, float], expected: dict[str, float]) -> None:
    """Compare names, but for the order of items whose scores are nearer than rounding tells apart."""
    assert hits == near(expected)
    assert list(hits.values()) == sorted(hits.values(), reverse=True)


def test_what_was_committed_is_found_and_what_was_deleted_is_gone(catalogue: Catalogue, index: ItemIndex[Any]) -> None:
    assert found(index, catalogue, X) == {}
    put(catalogue, {"a": [at(0.9)], "b": [at(0.5)]})
    assert_ranked(found(index, catalogue, X), {"a": 0.9, "b": 0.5})
    put(catalogue, {"b": [at(0.99)], "c": [at(0.1)]})
    assert_ranked(found(index, catalogue, X), {"b": 0.99, "a": 0.9, "c": 0.1})
    delete(catalogue, "a", "c")
    assert_ranked(found(index, catalogue, X), {"b": 0.99})
    put(catalogue, {"a": [at(0.7)]})
    assert_ranked(found(index, catalogue, X), {"b": 0.99, "a": 0.7})
    assert index.refresh() == catalogue.state().seq == 4
    assert len(index) == 2


def test_an_index_that_starts_late_or_twice_holds_the_same(
    case: tuple[str, str],
    catalogue: Catalogue,
    index: ItemIndex[Any],
    milvus: MilvusConnection,
    redis_client: redis.Redis,
    tmp_path: Path,
) -> None:
    put(catalogue, {"a": [at(0.9), at(0.2)], "b": [at(0.5)]})
    index.follow()
    put(catalogue, {"a": [at(0.3)]}, title="new")
    delete(catalogue, "b")
    late = open_kind(case[1], catalogue, milvus, redis_client, tmp_path)
    assert found(late, catalogue, X) == found(index, catalogue, X) == found(index, catalogue, X) == near({"a": 0.3})
    assert len(late) == len(index) == 1


def test_an_item_is_found_once_its_images_are_embedded(catalogue: Catalogue, index: ItemIndex[Any]) -> None:
    put(catalogue, {"a": [at(0.9)]}, embedded=False)
    assert found(index, catalogue, X) == {}
    with catalogue.change() as change:
        change.add_embeddings(ENCODER, {name_of(at(0.9)): at(0.9).tobytes()})
    assert_ranked(found(index, catalogue, X), {"a": 0.9})


def test_what_was_deleted_and_purged_while_the_worker_was_away_is_gone(
    catalogue: Catalogue, index: ItemIndex[Any]
) -> None:
    put(catalogue, {"a": [at(0.9)], "b": [at(0.5)], "c": [at(0.1)]})
    assert len(found(index, catalogue, X)) == 3
    delete(catalogue, "a")
    put(catalogue, {"b": [at(0.6)]})
    with catalogue.change() as change:
        assert change.purge_tombstones(datetime.now(UTC) + timedelta(hours=1)) == 1
    assert_ranked(found(index, catalogue, X), {"b": 0.6, "c": 0.1})
    assert len(index) == 2


def test_a_purge_of_what_the_index_has_seen_changes_nothing(catalogue: Catalogue, index: ItemIndex[Any]) -> None:
    put(catalogue, {"a": [at(0.9)], "b": [at(0.5)]})
    delete(catalogue, "a")
    index.follow()
    with catalogue.change() as change:
        change.purge_tombstones(datetime.now(UTC) + timedelta(hours=1))
    assert_ranked(found(index, catalogue, X), {"b": 0.5})


def test_an_item_appears_once_by_its_best_image(catalogue: Catalogue, index: ItemIndex[Any]) -> None:
    put(catalogue, {"a": [at(0.2), at(0.9), at(0.4)], "b": [at(0.8)], "c": [at(0.85), at(-0.5)]})
    assert_ranked(found(index, catalogue, X), {"a": 0.9, "c": 0.85, "b": 0.8})
    (row, _), *_ = index.nearest_items(X[None], 1)
    assert catalogue.hit_rows([row])[row][0].position == 1


def test_equal_scores_come_in_the_order_of_their_rows(catalogue: Catalogue, index: ItemIndex[Any]) -> None:
    names = [f"i{number}" for number in np.random.default_rng(0).permutation(40)]
    for name in names:
        put(catalogue, {name: [at(0.5)]})
    assert list(found(index, catalogue, X, k=3)) == names[:3]
    assert list(found(index, catalogue, X, k=50)) == names


def test_an_item_may_be_left_out(catalogue: Catalogue, index: ItemIndex[Any]) -> None:
    put(catalogue, {f"i{number}": [at(number / 10)] for number in range(1, 10)})
    assert list(found(index, catalogue, X, k=2, without="i9")) == ["i8", "i7"]
    assert list(found(index, catalogue, X, k=2, without="nobody")) == ["i9", "i8"]
    assert list(found(index, catalogue, X, k=20, without="i5")) == ["i9", "i8", "i7", "i6", "i4", "i3", "i2", "i1"]


def test_a_filter_lets_through_what_the_database_says(catalogue: Catalogue, index: ItemIndex[Any]) -> None:
    attributes: dict[str, dict[str, AttributeValue]] = {
        "i1": {"colour": "red", "price": 5},
        "i2": {"colour": "blue", "price": 5.5, "sale": True},
        "i3": {"price": 20, "sale": False},
        "i4": {"colour": "red", "sale": True},
        "i5": {},
    }
    put(catalogue, {name: [at(int(name[1]) / 10)] for name in attributes}, attributes=attributes)
    for condition, expected in (
        ({"colour": "red"}, ["i4", "i1"]),
        ({"colour": {"ne": "red"}}, ["i2"]),
        ({"not": {"colour": "red"}}, ["i5", "i3", "i2"]),
        ({"not": {"colour": {"ne": "red"}}}, ["i5", "i4", "i3", "i1"]),
        ({"colour": {"in": ["blue", "green"]}}, ["i2"]),
        ({"not": {"colour": {"in": ["blue", "green"]}}}, ["i5", "i4", "i3", "i1"]),
        ({"price": {"gte": 5.5, "lt": 20}}, ["i2"]),
        ({"sale": True}, ["i4", "i2"]),
        ({"sale": {"ne": True}}, ["i3"]),
        ({"or": [{"sale": False}, {"colour": "red", "price": {"lte": 5}}]}, ["i3", "i1"]),
        ({"colour": "green"}, []),
        ({}, ["i5", "i4", "i3", "i2", "i1"]),
    ):
        assert list(found(index, catalogue, X, filter=condition)) == expected, condition
    assert list(found(index, catalogue, X, k=1, filter={"colour": "red"}, without="i4")) == ["i1"]
    with pytest.raises(UnknownFilterField):
        index.allowed({"size": 5})
    with pytest.raises(FilterTypeMismatch):
        index.allowed({"price": "5"})


def test_changed_and_removed_attributes_count(catalogue: Catalogue, index: ItemIndex[Any]) -> None:
    put(catalogue, {"a": [at(0.9)], "b": [at(0.5)]}, attributes={"a": {"colour": "red"}, "b": {"colour": "blue"}})
    assert list(found(index, catalogue, X, filter={"colour": "red"})) == ["a"]
    with catalogue.change() as change:
        change.put([ItemChange("a", "", {"size": 5}, None), ItemChange("b", "", {"colour": "red"}, None)])
    assert list(found(index, catalogue, X, filter={"colour": "red"})) == ["b"]
    assert list(found(index, catalogue, X, filter={"not": {"colour": "red"}})) == ["a"]
    assert list(found(index, catalogue, X, filter={"size": {"gt": 4}})) == ["a"]


def test_several_images_find_what_is_like_any_of_them(catalogue: Catalogue, index: ItemIndex[Any]) -> None:
    put(catalogue, {"like x": [at(0.9)], "is y": [Y], "both": [at(0.5), (X + Y) / np.float32(np.sqrt(2))]})
    assert_ranked(found(index, catalogue, X, Y), {"is y": 1.0, "like x": 0.9, "both": 0.7071})
    assert_ranked(found(index, catalogue, Y, X, k=1), {"is y": 1.0})


def test_an_item_with_300_images_does_not_hide_the_others(catalogue: Catalogue, index: ItemIndex[Any]) -> None:
    put(catalogue, {"many": [at(0.9 + number / 10_000) for number in range(300)], "a": [at(0.5)], "b": [at(0.4)]})
    assert_ranked(found(index, catalogue, X, k=3), {"many": 0.9299, "a": 0.5, "b": 0.4})
    assert_ranked(found(index, catalogue, X, k=2, without="many"), {"a": 0.5, "b": 0.4})


def test_bug_an_item_with_300_images_does_not_hide_what_another_image_of_the_query_is_less_like(
    catalogue: Catalogue, index: ItemIndex[Any]
) -> None:
    """Y alone finds enough items, all of them worse than the one that X finds behind 300 images."""
    aside = np.eye(DIM, dtype=np.float32)
    poor = {f"poor{number}": [np.sqrt(0.96) * aside[3 + number] + 0.2 * Y] for number in range(4)}
    put(catalogue, {"many": [at(0.9 + number / 10_000) for number in range(300)], "good": [at(0.8)], **poor})
    assert_ranked(found(index, catalogue, X, Y, k=2), {"many": 0.9299, "good": 0.8})
    assert_ranked(found(index, catalogue, X, Y, k=1, without="many"), {"good": 0.8})


@pytest.mark.parametrize("seed", range(3))
def test_items_are_ranked_and_filtered_as_brute_force_does(
    catalogue: Catalogue, index: ItemIndex[Any], seed: int
) -> None:
    random = np.random.default_rng(seed)
    items = {f"i{number}": unit(int(random.integers(1, 17)), seed=100 * seed + number) for number in range(25)}
    attributes = {name: {"kind": ["a", "b", "c"][place % 3]} for place, name in enumerate(items) if place % 5}
    put(catalogue, items, attributes=attributes)
    oracle = BruteForceItems(catalogue)
    cases: tuple[tuple[int, Vectors, str | None, dict[str, Any]], ...] = (
        (1, unit(1, seed=1), None, {}),
        (5, unit(3, seed=2), None, {"kind": "a"}),
        (10, items["i3"], "i3", {"not": {"kind": "b"}}),
        (60, unit(2, seed=3), "i0", {}),
        (60, unit(2, seed=4), None, {"kind": {"ne": "c"}}),
    )
    for k, queries, without, condition in cases:
        options: dict[str, Any] = {"k": k, "without": without, "filter": condition}
        assert_ranked(found(index, catalogue, *queries, **options), found(oracle, catalogue, *queries, **options))


def test_queries_stay_as_they_are_and_what_can_not_be_searched_with_is_refused(
    catalogue: Catalogue, index: ItemIndex[Any]
) -> None:
    put(catalogue, {"a": [at(0.9)]})
    index.follow()
    queries = unit(3, seed=1)
    queries.flags.writeable = False
    assert len(index.nearest_items(queries, 5)) == 1
    wrong: list[tuple[Any, int]] = [
        (queries * np.float32(1.1), 1),
        (unit(1, dim=DIM + 1), 1),
        (queries.astype(np.float64), 1),
        (queries, 0),
    ]
    for bad, k in wrong:
        with pytest.raises(ValueError, match=r"expected float32|L2 norm 1|k must be"):
            index.nearest_items(bad, k)


def test_hits_tell_what_is_committed(catalogue: Catalogue, index: ItemIndex[Any]) -> None:
    put(catalogue, {"a": [at(0.9)], "b": [at(0.5)]}, title="old")
    index.follow()
    rows = [row for row, _ in index.nearest_items(X[None], 2)]
    assert [index.hits(rows)[row][0].title for row in rows] == ["old", "old"]
    with catalogue.change() as change:
        change.put([ItemChange("a", "new", {"colour": "red"}, None)])
    index.follow()
    changed, same = (index.hits(rows)[row][0] for row in rows)
    assert (changed.title, changed.attributes, same.title) == ("new", {"colour": "red"}, "old")
    delete(catalogue, "b")
    index.follow()
    assert index.hits(rows).keys() == {rows[0]}


def test_an_image_that_is_replaced_by_another_one_is_found_by_that(catalogue: Catalogue, index: ItemIndex[Any]) -> None:
    put(catalogue, {"a": [at(0.9)], "b": [at(0.5)]})
    assert_ranked(found(index, catalogue, X), {"a": 0.9, "b": 0.5})
    known = {name_of(at(0.1)): at(0.1).tobytes()}
    with catalogue.change() as change:
        change.add_embeddings(ENCODER, known)
        change.put([ItemChange("a", "", {}, [ImageRef(name, "image/png") for name in known])])
    assert_ranked(found(index, catalogue, X), {"b": 0.5, "a": 0.1})
    assert len(index) == 2


def test_rows_are_told_with_their_items_and_embeddings(catalogue: Catalogue, index: ItemIndex[Any]) -> None:
    assert (index.dim, index.vectors([])[1].shape, index.images_of([])[0]) == (DIM, (0, DIM), [])
    put(catalogue, {"a": [at(0.9), at(0.2)], "b": [at(0.5)]})
    assert len(found(index, catalogue, X)) == 2
    scores = dict(index.nearest_items(X[None], 5))
    (a, b), gone = scores, max(scores) + 10**6
    assert index.items_of([b, gone, a]) == ["b", None, "a"]
    rows, vectors = index.vectors([b, gone, a])
    assert dict(zip(rows.tolist(), (vectors @ X).tolist(), strict=True)) == near(scores)
    owners, vectors = index.images_of(["gone", "b", "a"])
    told = sorted(zip(owners, (vectors @ X).tolist(), strict=True))
    assert [owner for owner, _ in told] == ["a", "a", "b"]
    assert [score for _, score in told] == pytest.approx([0.2, 0.9, 0.5], abs=TOLERANCE)


def test_of_what_a_filter_lets_through_another_one_is_taken_away(catalogue: Catalogue, index: ItemIndex[Any]) -> None:
    attributes: dict[str, dict[str, AttributeValue]] = {"a": {"colour": "red"}, "b": {"colour": "blue"}, "c": {}}
    put(catalogue, {"a": [at(0.9)], "b": [at(0.5)], "c": [at(0.1)]}, attributes=attributes)
    assert len(found(index, catalogue, X)) == 3
    for allowed, gone, expected in (
        (None, {"colour": {"in": ["red"]}}, {"b", "c"}),
        ({"colour": {"in": ["red", "blue"]}}, {"colour": "blue"}, {"a"}),
        ({"or": [{"colour": "red"}, {"not": {"colour": "blue"}}]}, {"colour": "red"}, {"c"}),
        ({"colour": "red"}, {"colour": "red"}, set()),
    ):
        hits = index.nearest_items(X[None], 5, index.less(index.allowed(allowed), gone))
        assert set(index.items_of([row for row, _ in hits])) == expected


def test_the_most_similar_image_of_another_item_is_told_of_each(catalogue: Catalogue, index: ItemIndex[Any]) -> None:
    put(catalogue, {"a": [at(score / 100) for score in range(70, 90)]})
    assert len(found(index, catalogue, X)) == 1
    owners, vectors = index.images_of(["a"])
    assert index.nearest_others(owners, vectors) == [None] * 20
    put(catalogue, {"b": [at(0.5)], "c": [at(0.1)]})
    assert len(found(index, catalogue, X)) == 3
    owners, vectors = index.images_of(["a", "c", "b"])
    others = index.nearest_others(owners, vectors)
    assert {(owner, other and other[0]) for owner, other in zip(owners, others, strict=True)} == {
        ("a", "b"),
        ("b", "a"),
        ("c", "b"),
    }
    scores = {owner: other[1] for owner, other in zip(owners, others, strict=True) if other}
    assert scores["b"] == pytest.approx(float(at(0.5) @ at(0.7)), abs=TOLERANCE)
