"""Items as they are written and read, on SQLite and on PostgreSQL."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, select

from shared.attributes import AttributeValue
from shared.catalogue import LISTED_VALUES, Catalogue
from shared.catalogue_change import ImageRef, ItemChange
from shared.errors import AttributeTypeMismatch, ImageNotFound, ItemNotFound
from shared.filters import compile_filter
from shared.tables import ImportErrorRow, ItemAttributeRow, ItemImageRow, ItemRow

FRONT, SIDE, BACK = ("f" * 64, "5" * 64, "b" * 64)


def item(item_id: str, title: str = "", images: list[str] | None = None, **attributes: AttributeValue) -> ItemChange:
    refs = None if images is None else [ImageRef(sha256, "image/jpeg") for sha256 in images]
    return ItemChange(item_id, title, attributes, refs)


def put(catalogue: Catalogue, *items: ItemChange, as_of: datetime | None = None) -> int:
    with catalogue.change() as change:
        return change.put(items, as_of)


def delete(catalogue: Catalogue, *item_ids: str) -> int:
    with catalogue.change() as change:
        return change.delete(item_ids)


def ids(catalogue: Catalogue) -> list[str]:
    return [found.id for found in catalogue.page(1000, None)]


def test_an_item_is_read_as_it_was_put(catalogue: Catalogue) -> None:
    before = datetime.now(UTC)
    title = "Kleid “Été” 👗"
    attributes: dict[str, AttributeValue] = {"colour": "rot", "price": 9.99, "size": 42, "sale": True, "old": False}
    assert put(catalogue, item("a", title, [FRONT, SIDE], **attributes)) == 1
    found = catalogue.item("a")
    assert (found.id, found.title, found.attributes) == ("a", title, attributes)
    assert [type(value) for value in found.attributes.values()] == [str, float, int, bool, bool]
    assert [(image.position, image.sha256) for image in found.images] == [(0, FRONT), (1, SIDE)]
    assert found.images[1].url == f"/v1/items/a/image?position=1&v={SIDE[:12]}"
    assert before <= found.updated_at <= datetime.now(UTC)
    assert found.updated_at.utcoffset() == timedelta(0)
    assert catalogue.image("a", 1) == (SIDE, "image/jpeg")
    assert len(ids(catalogue)) == 1


def test_what_is_not_there_is_an_error(catalogue: Catalogue) -> None:
    put(catalogue, item("a", images=[FRONT]))
    with pytest.raises(ItemNotFound):
        catalogue.item("b")
    for item_id, position in (("b", 0), ("a", 1)):
        with pytest.raises(ImageNotFound):
            catalogue.image(item_id, position)


def test_an_item_that_is_put_again_as_it_is_changes_nothing(catalogue: Catalogue) -> None:
    put(catalogue, item("a", "A", [FRONT], colour="red", price=5))
    seq, before = catalogue.state().seq, catalogue.item("a")
    assert put(catalogue, item("a", "A", [FRONT], price=5, colour="red")) == 0
    assert put(catalogue, item("a", "A", None, colour="red", price=5)) == 0
    assert put(catalogue) == 0
    assert catalogue.state().seq == seq
    assert catalogue.item("a") == before


@pytest.mark.parametrize(
    "changed",
    [
        item("a", "B", [FRONT, SIDE], colour="red"),
        item("a", "A", [FRONT, SIDE], colour="blue"),
        item("a", "A", [FRONT, SIDE]),
        item("a", "A", [FRONT, SIDE], colour="red", price=5),
        item("a", "A", [SIDE, FRONT], colour="red"),
        item("a", "A", [FRONT], colour="red"),
        item("a", "A", [], colour="red"),
    ],
    ids=["title", "value", "attribute gone", "attribute new", "order of images", "fewer images", "no images"],
)
def test_every_difference_is_a_change(catalogue: Catalogue, changed: ItemChange) -> None:
    put(catalogue, item("a", "A", [FRONT, SIDE], colour="red"), item("other", "A", [BACK], colour="red"))
    state, other = catalogue.state(), catalogue.item("other")
    assert put(catalogue, changed, item("other", "A", [BACK], colour="red")) == 1
    found = catalogue.item("a")
    assert (found.title, found.attributes) == (changed.title, changed.attributes)
    assert [image.sha256 for image in found.images] == [image.sha256 for image in changed.images or ()]
    assert catalogue.state().seq == state.seq + 1
    assert catalogue.item("other") == other


def test_images_stay_where_none_are_given_and_keep_their_rows_where_they_are_the_same(
    catalogue: Catalogue, engine: Engine
) -> None:
    def rows() -> list[int]:
        with engine.connect() as connection:
            return list(connection.execute(select(ItemImageRow.id).order_by(ItemImageRow.position)).scalars())

    put(catalogue, item("a", "A", [FRONT, SIDE]))
    first = rows()
    put(catalogue, item("a", "B", None))
    put(catalogue, item("a", "C", [FRONT, SIDE]))
    assert rows() == first
    put(catalogue, item("a", "C", [FRONT, BACK]))
    assert len(rows()) == 2
    assert not set(rows()) & set(first), "a row of an index never comes to mean another image"


def test_a_deleted_item_is_gone_and_leaves_a_tombstone(catalogue: Catalogue, engine: Engine) -> None:
    put(catalogue, item("a", "A", [FRONT], colour="red"), item("b", "B", [SIDE], colour="blue"))
    seq = catalogue.state().seq
    assert delete(catalogue, "a", "nowhere") == 1
    assert catalogue.state().seq == seq + 1
    assert ids(catalogue) == ["b"]
    assert len(ids(catalogue)) == 1
    with pytest.raises(ItemNotFound):
        catalogue.item("a")
    with pytest.raises(ImageNotFound):
        catalogue.image("a", 0)
    with engine.connect() as connection:
        tombstone = connection.execute(select(ItemRow.seq).where(ItemRow.is_deleted.is_(True))).all()
        owners = connection.execute(select(ItemAttributeRow.item_id)).scalars().all()
    assert tombstone == [(seq + 1,)]
    assert owners == ["b"]
    assert delete(catalogue, "a") == delete(catalogue) == 0
    assert catalogue.state().seq == seq + 1


def test_a_deleted_item_may_come_back(catalogue: Catalogue) -> None:
    put(catalogue, item("a", "A", [FRONT], colour="red"))
    delete(catalogue, "a")
    with catalogue.change() as change:
        assert change.is_absent("a")
        assert change.put([item("a", "A", [SIDE], colour="red")]) == 1
        assert not change.is_absent("a")
    assert [image.sha256 for image in catalogue.item("a").images] == [SIDE]


def test_replacing_deletes_what_the_import_did_not_bring_except_rows_that_failed(catalogue: Catalogue) -> None:
    put(catalogue, *(item(item_id, images=[FRONT]) for item_id in ("kept", "same", "failed", "gone", "gone too")))
    job = datetime.now(UTC)
    put(catalogue, item("kept", "new", [FRONT]), item("same", images=[FRONT]), item("new"), as_of=job)
    put(catalogue, item("put meanwhile"))
    with catalogue.change() as change:
        names = ("job_id", "line", "item_id", "code", "detail")
        rows = [("job", 4, "failed", "image_missing", "No."), ("job", 5, None, "row_invalid", "No.")]
        rows.append(("another job", 5, "gone", "row_invalid", "No."))
        change.insert_new(ImportErrorRow, [dict(zip(names, row, strict=True)) for row in rows])
        assert change.delete_absent("job", job, page=1) == 2
    assert ids(catalogue) == ["failed", "kept", "new", "put meanwhile", "same"]
    seq = catalogue.state().seq
    with catalogue.change() as change:
        assert change.delete_absent("job", job) == 2, "the same number when a worker that died is replaced"
    assert catalogue.state().seq == seq


def test_an_import_that_another_one_overtook_deletes_nothing_that_both_name(catalogue: Catalogue) -> None:
    first = datetime.now(UTC)
    second = first + timedelta(seconds=1)
    put(catalogue, item("x", "of the first"), as_of=first)
    put(catalogue, item("x", "of the second"), as_of=second)
    with catalogue.change() as change:
        assert change.delete_absent("first", first) == 0
    assert catalogue.item("x").title == "of the second"


def test_work_that_was_asked_for_earlier_does_not_undo_what_was_asked_for_later(catalogue: Catalogue) -> None:
    asked = datetime.now(UTC)
    put(catalogue, item("put", "new"), item("deleted"))
    delete(catalogue, "deleted")
    seq = catalogue.state().seq
    assert put(catalogue, item("put", "old"), item("deleted", "old"), as_of=asked) == 0
    assert (ids(catalogue), catalogue.item("put").title, catalogue.state().seq) == (["put"], "new", seq)
    assert put(catalogue, item("put", "newer"), item("deleted", "again"), as_of=datetime.now(UTC)) == 2


def test_a_new_embedding_of_an_unchanged_item_reaches_every_index(catalogue: Catalogue) -> None:
    put(catalogue, item("a", images=[FRONT]))
    seq = catalogue.state().seq
    with catalogue.change() as change:
        change.add_embeddings("encoder", {FRONT: b"1234"})
        assert change.put([item("a", images=[FRONT])]) == 0
    changed = [entry for page in catalogue.changed_items("encoder", seq, catalogue.state().seq) for entry in page]
    assert [(entry.item_id, [vector for _, vector in entry.rows]) for entry in changed] == [("a", [b"1234"])]


def test_the_first_item_sets_the_type_of_a_field_and_others_must_keep_it(catalogue: Catalogue) -> None:
    put(catalogue, item("a", size=42, sale=True, colour="red"))
    assert catalogue.attribute_types() == {"size": "number", "sale": "boolean", "colour": "string"}
    wrong: list[dict[str, AttributeValue]] = [{"size": "42"}, {"size": True}, {"sale": 1}, {"sale": "yes"}]
    for attributes in wrong:
        with pytest.raises(AttributeTypeMismatch) as refusal:
            put(catalogue, ItemChange("b", "B", attributes, None), item("c"))
        assert refusal.value.members["attribute"] in attributes
    assert ids(catalogue) == ["a"], "a change that fails leaves nothing"
    assert put(catalogue, item("b", size=42.5, sale=False), item("c", colour="")) == 2


def test_items_of_one_change_must_agree_on_types_too(catalogue: Catalogue) -> None:
    with pytest.raises(AttributeTypeMismatch):
        put(catalogue, item("a", size=42), item("b", size="XL"))
    assert ids(catalogue) == []
    assert catalogue.attribute_types() == {}


def test_a_change_that_raises_leaves_nothing(catalogue: Catalogue) -> None:
    put(catalogue, item("a", "A", [FRONT]))
    before = (catalogue.state(), catalogue.item("a"), catalogue.attribute_types())
    with pytest.raises(RuntimeError, match="stop"), catalogue.change() as change:
        change.put([item("a", "B", [SIDE], size=5), item("b")])
        change.delete(["a"])
        change.add_embeddings("encoder", {FRONT: b"1234"})
        raise RuntimeError("stop")
    assert (catalogue.state(), catalogue.item("a"), catalogue.attribute_types()) == before
    assert catalogue.embeddings("encoder", [FRONT]) == {}


def test_pages_follow_each_other_without_gap_or_repeat(catalogue: Catalogue) -> None:
    put(catalogue, *(item(f"i{number:02d}", images=[FRONT]) for number in range(25)))
    delete(catalogue, "i03", "i20")
    pages, after = [], None
    while items := catalogue.page(7, after):
        pages.append([found.id for found in items])
        after = items[-1].id
    assert [len(page) for page in pages] == [7, 7, 7, 2]
    assert [item_id for page in pages for item_id in page] == [
        f"i{number:02d}" for number in range(25) if number not in (3, 20)
    ]
    assert [found.id for found in catalogue.page(2, "i02x")] == ["i04", "i05"]
    assert all(found.images for found in catalogue.page(50, None))


def test_fields_are_described_by_their_values_or_their_range(catalogue: Catalogue) -> None:
    assert catalogue.attributes() == []
    put(catalogue, item("a", colour="red", price=5, sale=True), item("b", colour="red", price=7.5))
    put(catalogue, item("c", colour="blue", price=-1), item("d", old="x"))
    delete(catalogue, "d")
    colour, price, sale = catalogue.attributes()
    assert (colour.name, colour.type, colour.values) == ("colour", "string", ["red", "blue"])
    assert (price.name, price.type, price.minimum, price.maximum) == ("price", "number", -1, 7.5)
    assert (sale.name, sale.type, sale.values, sale.minimum) == ("sale", "boolean", None, None)
    put(catalogue, *(item(f"m{number}", colour=f"c{number:03d}") for number in range(LISTED_VALUES + 10)))
    values = catalogue.attributes()[0].values
    assert values is not None
    assert values[:3] == ["red", "blue", "c000"]
    assert len(values) == LISTED_VALUES


def test_filters_mean_the_same_on_every_database(catalogue: Catalogue) -> None:
    put(catalogue, item("a", images=[FRONT], colour="Red", price=5), item("b", images=[FRONT], colour="red", sale=True))
    put(catalogue, item("c", images=[FRONT], price=9.5), item("d", images=[FRONT]))
    types = catalogue.attribute_types()
    for condition, expected in (
        ({"colour": "red"}, "b"),
        ({"colour": {"gte": "R", "lt": "r"}}, "a"),
        ({"price": {"gt": 5}}, "c"),
        ({"price": {"in": [5, 9.5, 10**15]}}, "ac"),
        ({"sale": True}, "b"),
        ({"not": {"sale": True}}, "acd"),
        ({"or": [{"sale": True}, {"price": {"lte": 5}}]}, "ab"),
        ({}, "abcd"),
    ):
        rows = catalogue.image_rows(compile_filter(condition, types))
        hits = catalogue.hit_rows(rows)
        assert sorted(row.item_id for row, _ in hits.values()) == list(expected), condition


def test_a_long_text_is_kept_whole_and_found_by_its_beginning(catalogue: Catalogue) -> None:
    story = "".join(chr(0x4E00 + number * 37 % 20_000) for number in range(20_000))  # 60 kB that don't compress well
    with catalogue.change() as change:
        change.put([ItemChange("long", "T", {"story": story}, [])])
    assert catalogue.item("long").attributes["story"] == story
    condition = compile_filter({"story": story}, catalogue.attribute_types())
    with catalogue.engine.connect() as connection:
        assert connection.execute(select(ItemRow.id).where(condition)).scalars().all() == ["long"]
