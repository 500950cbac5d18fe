"""What follows the catalogue relies on: the order of changes, and what an index must hold after each."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, select, update

from shared.catalogue import Catalogue, IndexedItem
from shared.catalogue_change import ImageRef, ItemChange
from shared.tables import ImportErrorRow, ItemRow, ReleaseRow

ENCODER = "encoder-1"


def photo(name: str) -> str:
    return name.encode().hex().ljust(64, "0")


def vector(name: str) -> bytes:
    return name.encode().ljust(8, b"\0")


def put(
    catalogue: Catalogue, item_id: str, *photos: str, embedded: Iterable[str] | None = None, title: str = ""
) -> int:
    """Write an item in one change, with embeddings of `embedded` or of all its photos; returns its seq."""
    with catalogue.change() as change:
        names = photos if embedded is None else embedded
        change.add_embeddings(ENCODER, {photo(name): vector(name) for name in names})
        change.put([ItemChange(item_id, title, {}, [ImageRef(photo(name), "image/png") for name in photos])])
    return catalogue.state().seq


def changed(catalogue: Catalogue, above: int = 0, up_to: int | None = None, page: int = 1000) -> list[IndexedItem]:
    last = catalogue.state().seq if up_to is None else up_to
    return [item for items in catalogue.changed_items(ENCODER, above, last, page) for item in items]


def vectors_by_item(items: list[IndexedItem]) -> dict[str, list[bytes]]:
    return {item.item_id: sorted(vector for _, vector in item.rows) for item in items}


def purge(catalogue: Catalogue, before: datetime) -> int:
    with catalogue.change() as change:
        return change.purge_tombstones(before)


def test_a_new_catalogue_is_at_the_beginning(catalogue: Catalogue) -> None:
    state = catalogue.state()
    assert (state.seq, state.purged_seq, state.release_id) == (0, 0, None)
    assert changed(catalogue) == []


def test_each_change_of_items_gets_the_next_number_and_others_get_none(catalogue: Catalogue) -> None:
    assert put(catalogue, "a", "front") == 1
    assert put(catalogue, "a", "front") == 1
    with catalogue.change() as change:
        change.add_embeddings(ENCODER, {photo("x"): vector("x")})
        change.activate("release", ENCODER, {})
        change.purge_tombstones(datetime.now(UTC))
    assert catalogue.state().seq == 1
    with catalogue.change() as change:
        change.put([ItemChange("b", "", {}, None)])
        change.delete(["a"])
    assert catalogue.state().seq == 2


def test_an_index_holds_the_embedded_images_of_its_own_encoder(catalogue: Catalogue) -> None:
    put(catalogue, "a", "front", "side")
    put(catalogue, "b", "front", "back", embedded=["front"])
    put(catalogue, "c", "none", embedded=[])
    with catalogue.change() as change:
        change.add_embeddings("encoder-2", {photo("none"): vector("other")})
    found = changed(catalogue)
    assert vectors_by_item(found) == {"a": [vector("front"), vector("side")], "b": [vector("front")], "c": []}
    rows = [row for item in found for row, _ in item.rows]
    assert len(set(rows)) == 3, "an image that two items share is a row for each"
    assert {hit.item_id for hit, _ in catalogue.hit_rows(rows).values()} == {"a", "b"}


def test_changes_between_two_numbers_are_told_and_no_others(catalogue: Catalogue) -> None:
    for name in ("a", "b", "c"):
        put(catalogue, name, name)
    assert [item.item_id for item in changed(catalogue, above=1)] == ["b", "c"]
    assert [item.item_id for item in changed(catalogue, above=1, up_to=2)] == ["b"]
    assert changed(catalogue, above=3) == []
    with catalogue.change() as change:
        change.delete(["a"])
    assert changed(catalogue, above=3) == [IndexedItem("a", ())]


@pytest.mark.parametrize("page", [1, 2, 3, 10])
def test_pages_split_a_large_change_without_loss(catalogue: Catalogue, page: int) -> None:
    with catalogue.change() as change:
        change.add_embeddings(ENCODER, {photo("p"): vector("p")})
        images = [ImageRef(photo("p"), "image/png")]
        change.put([ItemChange(f"i{number}", "", {}, images) for number in range(7)])
    put(catalogue, "later", "p")
    pages = list(catalogue.changed_items(ENCODER, 0, 2, page))
    assert [len(items) for items in pages[:-1]] == [page] * (len(pages) - 1)
    found = [item.item_id for items in pages for item in items]
    assert found == [*(f"i{number}" for number in range(7)), "later"]
    assert all(item.rows for items in pages for item in items)


def test_embeddings_are_kept_by_encoder_and_a_known_one_stays(catalogue: Catalogue) -> None:
    front, side = photo("front"), photo("side")
    with catalogue.change() as change:
        change.add_embeddings(ENCODER, {front: b"first"})
        change.add_embeddings(ENCODER, {front: b"second", side: b"side"})
        change.add_embeddings("encoder-2", {front: b"other"})
        change.add_embeddings(ENCODER, {})
    assert catalogue.embeddings(ENCODER, [front, side, photo("x")]) == {front: b"first", side: b"side"}
    assert catalogue.embedded_images("encoder-2", [front, side]) == {front}
    assert catalogue.embeddings("encoder-3", [front]) == catalogue.embeddings(ENCODER, []) == {}


def test_images_without_an_embedding_are_found_and_told_once_they_have_one(catalogue: Catalogue) -> None:
    put(catalogue, "a", "front", "side", embedded=["side"])
    put(catalogue, "b", "front", "back", embedded=[])
    seq = put(catalogue, "c", "side")
    missing = catalogue.images_to_embed(ENCODER, 10)
    assert sorted(missing) == sorted([photo("front"), photo("back")])
    assert len(catalogue.images_to_embed(ENCODER, 1)) == 1
    assert len(catalogue.images_to_embed("encoder-2", 10)) == 3
    with catalogue.change() as change:
        change.add_embeddings(ENCODER, {photo("front"): vector("front")})
    assert vectors_by_item(changed(catalogue, above=seq)) == {
        "a": [vector("front"), vector("side")],
        "b": [vector("front")],
    }
    assert catalogue.images_to_embed(ENCODER, 10) == [photo("back")]


def test_purging_forgets_old_tombstones_and_says_up_to_which_number(catalogue: Catalogue) -> None:
    for name in ("a", "b", "c"):
        put(catalogue, name, name)
    with catalogue.change() as change:
        change.delete(["b"])
    between = datetime.now(UTC)
    with catalogue.change() as change:
        change.delete(["a"])
    assert purge(catalogue, between - timedelta(hours=1)) == 0
    assert catalogue.state().purged_seq == 0
    assert purge(catalogue, between) == 1
    assert (catalogue.state().purged_seq, catalogue.state().seq) == (4, 5)
    assert [item.item_id for item in changed(catalogue)] == ["c", "a"]
    assert purge(catalogue, datetime.now(UTC) + timedelta(hours=1)) == 1
    assert catalogue.state().purged_seq == 5
    assert len(catalogue.page(10, None)) == 1


def test_bug_the_purged_number_never_falls_though_clocks_of_hosts_differ(catalogue: Catalogue, engine: Engine) -> None:
    for name in ("a", "b"):
        put(catalogue, name, name)
        with catalogue.change() as change:
            change.delete([name])
    now = datetime.now(UTC)
    with engine.begin() as connection:  # the host that deleted the first item has a clock that is ahead
        connection.execute(update(ItemRow).where(ItemRow.id == "a").values(updated_at=now + timedelta(minutes=5)))
    assert purge(catalogue, now) == 1
    assert catalogue.state().purged_seq == 4
    assert purge(catalogue, now + timedelta(hours=1)) == 1
    assert catalogue.state().purged_seq == 4


def test_purging_frees_the_names_of_fields_that_no_item_has(catalogue: Catalogue) -> None:
    with catalogue.change() as change:
        change.put([ItemChange("a", "", {"size": 5, "colour": "red"}, None), ItemChange("b", "", {"size": 6}, None)])
    with catalogue.change() as change:
        change.delete(["a"])
    assert catalogue.attribute_types() == {"size": "number", "colour": "string"}
    purge(catalogue, datetime.now(UTC))
    assert catalogue.attribute_types() == {"size": "number"}
    with catalogue.change() as change:
        assert change.put([ItemChange("a", "", {"colour": 7}, None)]) == 1
    assert catalogue.attribute_types()["colour"] == "number"


def test_a_release_is_registered_once_and_may_be_active_again(catalogue: Catalogue, engine: Engine) -> None:
    for release, manifest in (("r1", {"dim": 8}), ("r2", {"dim": 9}), ("r1", {"dim": 10})):
        with catalogue.change() as change:
            change.activate(release, ENCODER, manifest)
        assert catalogue.state().release_id == release
    with engine.connect() as connection:
        kept = connection.execute(select(ReleaseRow.id, ReleaseRow.manifest).order_by(ReleaseRow.id)).all()
    assert kept == [("r1", {"dim": 8}), ("r2", {"dim": 9})], "a release is immutable"


def test_rows_that_were_left_out_are_told_by_line(catalogue: Catalogue) -> None:
    with catalogue.change() as change:
        row = {"job_id": "job", "item_id": None, "code": "row_invalid", "detail": "Why."}
        for number in (300, 2, 10, 41):
            change.insert_new(ImportErrorRow, [{**row, "line": number}])
        change.insert_new(ImportErrorRow, [{**row, "line": 2, "detail": "Again."}, {**row, "job_id": "x", "line": 5}])
    first = catalogue.row_errors("job", 3, 0)
    assert [(error.line, error.detail) for error in first] == [(2, "Why."), (10, "Why."), (41, "Why.")]
    assert [error.line for error in catalogue.row_errors("job", 3, 41)] == [300]
    assert catalogue.row_errors("none", 3, 0) == []
