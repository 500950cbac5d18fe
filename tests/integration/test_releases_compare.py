"""A new release beside the active one, against explicit loops."""

import numpy as np
import pytest

from shared.catalogue import Catalogue
from shared.releases import Release, choose_release
from tests.shop import COLOURS, Shop
from worker.releases.compare import compare_with_active

ITEMS, DIM = 48, 6


def release(encoder_id: str) -> Release:
    return Release(f"{encoder_id}.flat", encoder_id, {"encoder": {"files": {}}, "similar": {}})


def embed(catalogue: Catalogue, encoder_id: str, hashes: list[str], noise: float) -> dict[str, np.ndarray]:
    """Give each photo the direction of its colour, and noise."""
    random = np.random.default_rng(len(encoder_id))
    vectors = {}
    for number, sha256 in enumerate(hashes):
        vector = np.eye(DIM)[number % len(COLOURS)] + noise * random.standard_normal(DIM)
        vectors[sha256] = (vector / np.linalg.norm(vector)).astype("<f4")
    with catalogue.change() as change:
        change.add_embeddings(encoder_id, {sha256: vector.tobytes() for sha256, vector in vectors.items()})
    return vectors


def nearest(vectors: dict[str, np.ndarray], query: str) -> list[str]:
    others = [sha256 for sha256 in sorted(vectors) if sha256 != query]
    return sorted(others, key=lambda sha256: -float(vectors[sha256] @ vectors[query]))[:10]


def test_precision_and_agreement_are_those_of_explicit_loops(shop: Shop) -> None:
    hashes = shop.fill(ITEMS)
    colour_of = {sha256: number % len(COLOURS) for number, sha256 in enumerate(hashes)}
    new, old = embed(shop.catalogue, "good", hashes, 0.2), embed(shop.catalogue, "noisy", hashes, 0.9)
    choose_release(shop.catalogue, release("noisy"))
    queries = hashes[:20]
    told = compare_with_active(shop.catalogue, release("good"), queries, "colour")
    assert told is not None
    agreement: list[float] = []
    precisions: dict[str, list[float]] = {"new": [], "old": []}
    for query in queries:
        found = {"new": nearest(new, query), "old": nearest(old, query)}
        agreement.append(len({*found["new"]} & {*found["old"]}) / 10)
        for name, hits in found.items():
            precisions[name].append(sum(colour_of[hit] == colour_of[query] for hit in hits[:5]) / 5)
    gains = np.array(precisions["new"]) - np.array(precisions["old"])
    assert (told["with"], told["queries"], told["images"], told["label"]) == ("noisy.flat", 20, ITEMS, "colour")
    assert told["agreement_at_10"] == pytest.approx(np.mean(agreement), abs=1e-4)
    assert told["precision_at_5"] == pytest.approx(np.mean(precisions["new"]), abs=1e-4)
    assert told["active_precision_at_5"] == pytest.approx(np.mean(precisions["old"]), abs=1e-4)
    assert told["gain"] == pytest.approx(gains.mean(), abs=1e-4)
    assert 0 < told["gain_interval_95"][0] < told["gain"] < told["gain_interval_95"][1]


def test_a_release_of_the_same_encoder_finds_the_same_and_is_not_compared(shop: Shop) -> None:
    hashes = shop.fill(ITEMS)
    embed(shop.catalogue, "good", hashes, 0.2)
    choose_release(shop.catalogue, release("good"))
    assert compare_with_active(shop.catalogue, release("good"), hashes, None) is None


def test_images_that_one_of_them_has_not_embedded_are_left_out(shop: Shop) -> None:
    hashes = shop.fill(ITEMS)
    embed(shop.catalogue, "good", hashes, 0.2)
    embed(shop.catalogue, "noisy", hashes[:40], 0.9)
    choose_release(shop.catalogue, release("noisy"))
    told = compare_with_active(shop.catalogue, release("good"), hashes, None)
    assert told is not None
    assert (told["images"], told["queries"], told["label"]) == (40, 40, "colour")


def test_there_is_nothing_to_compare_with_before_a_release_is_active(shop: Shop) -> None:
    hashes = shop.fill(ITEMS)
    embed(shop.catalogue, "good", hashes, 0.2)
    assert compare_with_active(shop.catalogue, release("good"), hashes, None) is None
