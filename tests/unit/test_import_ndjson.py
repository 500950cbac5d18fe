import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.attributes import MAX_INTEGER, AttributeValue
from shared.errors import ImportColumnsMissing, ImportEmpty, ImportFileBroken, LookalikeError
from worker.imports import columns, text
from worker.imports.catalogue import CatalogueReader, open_catalogue
from worker.imports.rows import CatalogueRow, RejectedRow, Row

# A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

GOOD = {"id": "good", "image": "good.jpg"}


def reader(*lines: object, encoding: str = "utf-8") -> CatalogueReader:
    texts = [line if isinstance(line, str | bytes) else json.dumps(line) for line in lines]
    content = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in texts)
    return open_catalogue(io.BytesIO(content), "products.ndjson", encoding=encoding)


def read_after_good(line: object) -> Row:
    first, second, *rest = reader(GOOD, line)
    assert (first.line, first.item_id, rest) == (1, "good", [])
    return second


def error_of(line: object) -> LookalikeError:
    row = read_after_good(line)
    assert isinstance(row, RejectedRow)
    assert row.line == 2
    return row.error


def item(**values: object) -> dict[str, object]:
    return {"id": "a", "image": "a.jpg", **values}


def test_an_object_becomes_an_item_with_its_own_types() -> None:
    row = read_after_good(item(title="Bag", price=9.5, stock=3, new=True, colour=" red ", size=None, note=""))
    attributes: dict[str, AttributeValue] = {"price": 9.5, "stock": 3, "new": True, "colour": "red"}
    assert row == CatalogueRow(2, "a", "Bag", ("a.jpg",), attributes)


@pytest.mark.parametrize(("number", "expected"), [(7, "7"), (7.0, "7"), (0, "0")])
def test_a_number_as_id_becomes_text(number: float, expected: str) -> None:
    assert read_after_good(item(id=number)).item_id == expected


@pytest.mark.parametrize("item_id", ["", " ", None, "a b", "-a", "é", "a/b", "x" * 129, True, -1, ["a"], {"a": 1}])
def test_what_cannot_be_an_id_is_refused(item_id: object) -> None:
    assert error_of(item(id=item_id)).code == "row_invalid"


@pytest.mark.parametrize("item_id", ["a", "A:1.2~x@y+z-_", "0" * 128])
def test_an_id_may_hold_what_urls_let_through(item_id: str) -> None:
    assert read_after_good(item(id=f" {item_id} ")).item_id == item_id


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"id": "a", "image"}', "character 20"),
        ("{", "character 2"),
        ('"a"', "an item is an object"),
        ("[1, 2]", "an item is an object"),
        ("null", "an item is an object"),
        ('{"id": "a", "id": "b", "image": "a.jpg"}', "'id' more than once"),
        ('{"id": "a", "image": "a.jpg", "price": NaN}', "NaN"),
        ('{"id": "a", "image": "a.jpg", "price": -Infinity}', "-Infinity"),
        ('{"id": "a", "image": "a.jpg", "price": 1e999}', "no number"),
        ('{"id": "a", "image": "a.jpg", "price": ' + "9" * 5000 + "}", "too many digits"),
        ("[" * 100_000, "too deeply"),
        (item(size={"eu": 42}), "'size' is an object"),
        (item(tags=["a", "b"]), "'tags' is a list"),
        (item(serial=MAX_INTEGER + 1), "too large"),
        (item(note="a\0b"), "NUL"),
        ('{"id": "a", "image": "a.jpg", "note": "\\ud800"}', "half a character"),
        (item(title=["Bag"]), "'title' is a list"),
        (item(title="x" * 1001), "1001 characters"),
        (item(image={"path": "a.jpg"}), "list of texts"),
        (item(image=[["a.jpg"]]), "'image' is a list"),
        (item(image=["a.jpg", 1]), "holds 1"),
        (item(image=[f"{n}.jpg" for n in range(17)]), "17 images"),
        (item(image="x" * 2049), "2049 characters"),
        (item(**{f"a{n}": n for n in range(101)}), "101 attributes"),
        (item(note="x" * text.MAX_ROW_CHARACTERS), "longer than"),
    ],
)
def test_a_row_that_cannot_be_an_item_says_why_and_the_file_goes_on(line: object, says: str) -> None:
    error = error_of(line)
    assert error.code == "row_invalid"
    assert says in error.detail
    assert len(error.detail) < 400


@pytest.mark.parametrize("image", [None, "", " | ", [], [None, " "]])
def test_a_row_without_image_misses_it(image: object) -> None:
    assert error_of(item(image=image)).code == "image_missing"


def test_images_come_as_text_or_as_list() -> None:
    assert getattr(read_after_good(item(image="a.jpg|b.jpg")), "images", None) == ("a.jpg", "b.jpg")
    assert getattr(read_after_good(item(image=["a.jpg", "b|c.jpg"])), "images", None) == ("a.jpg", "b|c.jpg")


def test_the_most_images_and_attributes_are_accepted() -> None:
    row = read_after_good(item(image=[f"{n}.jpg" for n in range(16)], **{f"a{n}": n for n in range(100)}))
    assert isinstance(row, CatalogueRow)
    assert (len(row.images), len(row.attributes)) == (16, 100)


def test_the_first_valid_row_of_an_id_counts_and_later_ones_name_its_line() -> None:
    rows = list(reader({"id": "a"}, item(price=1), GOOD, "", item(price=2)))
    assert [
        (row.line, getattr(row, "error", None) and row.error.code) for row in rows if isinstance(row, RejectedRow)
    ] == [
        (1, "image_missing"),
        (5, "duplicate_id"),
    ]
    assert isinstance(rows[-1], RejectedRow)
    assert "Line 2 " in rows[-1].error.detail
    assert rows[-1].item_id == "a"


def test_blank_lines_and_a_byte_order_mark_are_no_rows() -> None:
    rows = list(reader(b"\xef\xbb\xbf", " ", item(), "", encoding="utf-8"))
    assert [(row.line, row.item_id) for row in rows] == [(3, "a")]


def test_latin_1_bytes_cost_their_row_alone() -> None:
    rows = list(reader(GOOD, b'{"id": "a", "image": "a.jpg", "title": "Gr\xf6\xdfe"}', item(id="b")))
    assert [row.item_id for row in rows] == ["good", None, "b"]
    assert isinstance(rows[1], RejectedRow)
    assert rows[1].error.code == "row_encoding"


def test_a_key_that_no_object_has_is_a_missing_column() -> None:
    with pytest.raises(ImportColumnsMissing, match="'id'; it has 'sku', 'image', 'name'"):
        reader({"sku": 1, "image": "1.jpg"}, {"name": "Bag"})


def test_a_bad_first_line_does_not_hide_the_columns_of_the_others() -> None:
    assert [row.item_id for row in reader("{", GOOD)] == [None, "good"]


def test_a_file_without_any_object_is_broken_at_its_first_line() -> None:
    with pytest.raises(ImportFileBroken, match="Line 1: The line is not JSON"):
        reader("{", '"id": "a",', '"image": "a.jpg"', "}")


def test_a_file_of_blank_lines_is_empty() -> None:
    with pytest.raises(ImportEmpty):
        reader("", " ", "")


def test_names_that_a_filter_cannot_use_are_skipped_even_with_nested_values() -> None:
    catalogue = reader(item(colour="red", **{"not": 1, "a.b": {"c": 1}, "x" * 65: 1}), {**GOOD, "a.b": 2})
    assert [row.item_id for row in catalogue] == ["a", "good"]
    assert catalogue.skipped_columns == ["not", "a.b", "x" * 65]


def test_names_that_nobody_can_store_are_reported_without_their_bad_characters() -> None:
    catalogue = reader('{"id": "a", "image": "a.jpg", "\\ud800\\u0000": 1}')
    assert catalogue.skipped_columns == ["\ufffd\ufffd"]
    with pytest.raises(ImportColumnsMissing) as raised:
        reader('{"\\ud800": "a", "image": "a.jpg"}')
    assert raised.value.members["found"] == ["\ufffd", "image"]
    assert raised.value.detail.encode("utf-8")


def test_names_without_end_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "MAX_NAMES", 10)
    catalogue = reader(*({"id": n, "image": "a.jpg", f"name{n}": n} for n in range(50)))
    rows = [row for row in catalogue if isinstance(row, CatalogueRow)]
    assert sum(len(row.attributes) for row in rows) == 10
    assert catalogue.skipped_columns == [columns.OVERFLOW]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@patient
@given(st.dictionaries(st.sampled_from(["id", "image", "title", "colour", "or", "ö"]), json_values), st.booleans())
def test_any_object_becomes_a_storable_item_or_a_named_error(fields: dict[str, object], is_ascii: bool) -> None:
    row = read_after_good(json.dumps(fields, ensure_ascii=is_ascii))
    if isinstance(row, RejectedRow):
        assert row.error.code in ("row_invalid", "image_missing", "duplicate_id")
        return
    assert json.dumps([row.item_id, row.title, row.images, row.attributes], allow_nan=False).encode("utf-8")
    assert set(row.attributes) <= {"colour"}
