"""Which interrupted build of a release goes on."""

from typing import Any

from shared.releases import Release, announce_release, register_release
from tests.shop import Shop
from worker.releases.build import Wishes, interrupted_build
from worker.releases.release import release_of

BASE = "tiny-0123456789"
EARLY, MIDDLE, LATE = (f"2026-01-0{day}T00:00:00+00:00" for day in (1, 2, 3))


def release(name: str, chosen_at: str, **described: Any) -> Release:
    encoder = {"id": f"{BASE}.{name}", "base_id": BASE, "files": {}}
    return release_of(encoder, built_from={"asked": ["auto", None], "chosen_at": chosen_at}, **described)


def finished(name: str, chosen_at: str, built_at: str) -> Release:
    return release(name, chosen_at, built_at=built_at, similar={"min_cosine": 1.0})


def test_a_build_goes_on_if_the_same_was_to_be_built(shop: Shop) -> None:
    draft = release("draft", MIDDLE)
    register_release(shop.catalogue, finished("older", EARLY, EARLY))
    announce_release(shop.catalogue, draft)
    assert interrupted_build(shop.catalogue, BASE, Wishes()) == draft
    assert interrupted_build(shop.catalogue, BASE, Wishes(runtime="torch")) is None
    assert interrupted_build(shop.catalogue, BASE, Wishes(label="colour")) is None
    assert interrupted_build(shop.catalogue, "other-0123456789", Wishes()) is None


def test_a_build_that_a_later_one_has_replaced_stays_behind(shop: Shop) -> None:
    announce_release(shop.catalogue, release("draft", EARLY))
    register_release(shop.catalogue, finished("newer", MIDDLE, MIDDLE))
    assert interrupted_build(shop.catalogue, BASE, Wishes()) is None


def test_a_release_that_was_built_again_counts_as_new(shop: Shop) -> None:
    register_release(shop.catalogue, finished("again", EARLY, EARLY))
    announce_release(shop.catalogue, release("draft", MIDDLE))
    register_release(shop.catalogue, finished("again", LATE, LATE))
    assert interrupted_build(shop.catalogue, BASE, Wishes()) is None
