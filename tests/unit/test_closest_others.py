"""The most similar image of another item: both ways give what an explicit loop gives."""

from collections.abc import Sequence

import numpy as np
import pytest

import worker.closest_others
from worker.closest_others import closest_by_products, closest_by_search
from worker.index.flat_index import FlatIndex

DIM = 8
ROWS = 200
GONE = 7


def item_of(row: int) -> str | None:
    return None if row == GONE else f"i{row // 3}"  # three images each


def items_of(rows: Sequence[int]) -> list[str | None]:
    return [item_of(row) for row in rows]


@pytest.fixture
def vectors() -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)
    rows[GONE] = rows[0]
    rows[90] = rows[1]  # copies
    found: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found


@pytest.fixture
def index(vectors: np.ndarray) -> FlatIndex:
    index = FlatIndex(DIM)
    index.add(np.arange(ROWS, dtype=np.int64), vectors)
    return index


@pytest.mark.parametrize("at_once", [(2048, 4096), (7, 11), (1, 1)])
def test_both_ways_find_what_a_loop_finds(
    index: FlatIndex, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch, at_once: tuple[int, int]
) -> None:
    monkeypatch.setattr(worker.closest_others, "QUERIES_AT_ONCE", at_once[0])
    monkeypatch.setattr(worker.closest_others, "ROWS_AT_ONCE", at_once[1])
    rows = [row for row in range(ROWS) if row != GONE]
    owners = [str(item_of(row)) for row in rows]
    before = vectors.copy()
    by_products = closest_by_products(index, owners, vectors[rows], items_of)
    by_search = closest_by_search(index, owners, vectors[rows], items_of, own_rows=3)
    for row, *found in zip(rows, by_products, by_search, strict=True):
        others = {
            other: float(np.dot(vectors[row], vectors[other]))
            for other in range(ROWS)
            if item_of(other) not in (None, item_of(row))
        }
        best = max(others, key=others.__getitem__)
        for other in found:
            assert other is not None
            assert other[0] == item_of(best)
            assert other[1] == pytest.approx(others[best], abs=1e-6)
    assert (vectors == before).all()
    copied = by_products[1]
    assert copied is not None
    assert (copied[0], round(copied[1], 5)) == ("i30", 1)


def test_an_item_alone_has_none(vectors: np.ndarray) -> None:
    index = FlatIndex(DIM)
    assert closest_by_products(index, ["a"], vectors[:1], items_of) == [None]
    index.add(np.arange(3, dtype=np.int64), vectors[:3])
    assert closest_by_products(index, ["i0"] * 3, vectors[:3], items_of) == [None] * 3
    assert closest_by_search(index, ["i0"] * 3, vectors[:3], items_of, own_rows=3) == [None] * 3
