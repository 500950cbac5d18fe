import csv
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import ImportColumnsMissing, ImportEmpty, ImportFileBroken, InvalidParameter, LookalikeError
from worker.imports import csv_file, text
from worker.imports.catalogue import CatalogueReader, open_catalogue
from worker.imports.rows import CatalogueRow, RejectedRow, Row

# A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def reader(content: str | bytes, columns: dict[str, str] | None = None, encoding: str = "utf-8") -> CatalogueReader:
    file = io.BytesIO(content.encode() if isinstance(content, str) else content)
    return open_catalogue(file, "products.csv", columns=columns, encoding=encoding)


def read(content: str | bytes, columns: dict[str, str] | None = None, encoding: str = "utf-8") -> list[Row]:
    return list(reader(content, columns, encoding))


def outline(rows: list[Row]) -> list[tuple[int, str]]:
    """Line and either id or error code of each row."""
    return [(row.line, row.item_id if isinstance(row, CatalogueRow) else row.error.code) for row in rows]


def only_error(rows: list[Row]) -> RejectedRow:
    (rejected,) = [row for row in rows if isinstance(row, RejectedRow)]
    return rejected


def test_a_row_becomes_an_item_with_trimmed_values_and_without_the_empty_ones() -> None:
    (row,) = read("id,title,image,colour,size\n 7 , Red bag , images/7.jpg ,red,\n")
    assert row == CatalogueRow(2, "7", "Red bag", ("images/7.jpg",), {"colour": "red"})


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(delimiter: str) -> None:
    header, cells = ["id", "image", "note, or; so"], ["a", "a.jpg", 'x,y;z "1"']
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerows([header, cells])
    assert outline(read(file.getvalue())) == [(2, "a")]


def test_the_delimiter_that_shows_an_id_column_wins_over_one_that_makes_more_cells() -> None:
    assert outline(read("id;image;note, and, more, words\na;a.jpg;x\n")) == [(2, "a")]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_each_kind_of_line_end_is_counted_once(line_end: str) -> None:
    content = line_end.join(["id,image,note", "a,a.jpg,x", "", '"b",b.jpg,"two', 'lines"', "   ", ",,", "c,c.jpg,y"])
    assert outline(read(content)) == [(2, "a"), (4, "b"), (8, "c")]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_outranks_the_stated_encoding(encoding: str) -> None:
    (row,) = read("id,image,title\na,a.jpg,Größe\n".encode(encoding), encoding="latin-1")
    assert isinstance(row, CatalogueRow)
    assert (row.item_id, row.title) == ("a", "Größe")


def test_latin_1_bytes_cost_their_row_alone() -> None:
    rows = read(b"id,image,title\na,a.jpg,Bag\nb,b.jpg,Gr\xf6\xdfe\nc,c.jpg,Shoe\n")
    assert outline(rows) == [(2, "a"), (3, "row_encoding"), (4, "c")]
    assert "0xF6 after 'b,b.jpg,Gr'" in only_error(rows).error.detail
    assert "encoding=latin-1" in only_error(rows).error.detail


def test_latin_1_bytes_are_read_with_their_encoding_named() -> None:
    (row,) = read(b"id,image,title\nb,b.jpg,Gr\xf6\xdfe\n", encoding="latin-1")
    assert isinstance(row, CatalogueRow)
    assert row.title == "Größe"


def test_latin_1_bytes_in_the_header_break_the_file() -> None:
    with pytest.raises(ImportFileBroken, match="encoding=latin-1"):
        read(b"id,image,gr\xf6\xdfe\na,a.jpg,1\n")


@pytest.mark.parametrize("encoding", ["klingon", "hex", "", "utf-8\0", "x" * 500])
def test_an_unknown_encoding_is_a_bad_parameter(encoding: str) -> None:
    with pytest.raises(InvalidParameter, match="latin-1"):
        read("id,image\na,a.jpg\n", encoding=encoding)


def test_an_encoding_that_loses_its_place_breaks_the_file() -> None:
    with pytest.raises(ImportFileBroken, match="line"):
        read("id,image\na,a.jpg\n".encode("utf-16-le") + b"\x00", encoding="utf-16-le")


def test_a_row_with_another_number_of_cells_names_both_numbers() -> None:
    rows = read("id,title,image\na,Bag,a.jpg\nb,Bag, red,b.jpg\nc,c.jpg\nd,Bag,d.jpg\n")
    assert outline(rows) == [(2, "a"), (3, "row_invalid"), (4, "row_invalid"), (5, "d")]
    details = [row.error.detail for row in rows if isinstance(row, RejectedRow)]
    assert "has 4 cells, but the header has 3" in details[0]
    assert "has 2 cells, but the header has 3" in details[1]


def test_a_quote_that_is_never_closed_costs_its_row_alone() -> None:
    content = 'id,title,image\na,Bag,a.jpg\nb,"Bag,b.jpg\n' + "".join(f"{n},Bag,{n}.jpg\n" for n in range(500))
    assert outline(read(content)) == [(2, "a"), (3, "row_invalid"), *((n + 4, str(n)) for n in range(500))]


def test_a_quote_that_the_next_row_closes_makes_no_wrong_item() -> None:
    rows = read('id,title,image\na,"Bag,a.jpg\nb,"Shoe",b.jpg\nc,"Hat",c.jpg\n')
    assert outline(rows) == [(2, "row_invalid"), (3, "b"), (4, "c")]


def test_a_row_beyond_the_limit_is_named_and_the_next_one_is_read() -> None:
    long = "x" * (text.MAX_ROW_CHARACTERS + 10)
    rows = read(f"id,image,note\na,a.jpg,{long}\nb,b.jpg,{'x' * 200_000}\nc,c.jpg,{long}")
    assert outline(rows) == [(2, "row_invalid"), (3, "b"), (4, "row_invalid")]
    assert "1,048,576 characters" in rows[0].error.detail if isinstance(rows[0], RejectedRow) else False


def test_reading_again_after_broken_rows_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_file, "MAX_CHARACTERS_AGAIN", 5000)
    monkeypatch.setattr(csv_file, "MAX_ROW_CHARACTERS", 1000)
    rows = read("id,title,image\n" + 'a","b,a.jpg\n' * 10_000)  # each line closes a quote and opens one
    lines = [row.line for row in rows]
    assert lines[:5] == [2, 3, 4, 5, 6]
    assert len(lines) < 150
    assert {code for _, code in outline(rows)} == {"row_invalid"}


def test_a_nul_costs_its_row_alone() -> None:
    rows = read("id,image\na,a.jpg\nb,b\0.jpg\nc,c.jpg\n")
    assert outline(rows) == [(2, "a"), (3, "row_invalid"), (4, "c")]
    assert "NUL" in only_error(rows).error.detail


def test_a_missing_id_column_lists_those_found_and_the_remedy() -> None:
    with pytest.raises(ImportColumnsMissing) as raised:
        read("sku,name,image\n1,Bag,1.jpg\n")
    assert "'sku', 'name', 'image'" in raised.value.detail
    assert 'columns={"id": "its name in the file"}' in raised.value.detail
    assert raised.value.members["found"] == ["sku", "name", "image"]


def test_columns_of_other_names_are_mapped() -> None:
    content = "sku,picture,name,image\n1,p.jpg,Bag,front\n"
    (row,) = read(content, {"id": "sku", "image": "picture", "title": "name"})
    assert row == CatalogueRow(2, "1", "Bag", ("p.jpg",), {"image": "front"})


@pytest.mark.parametrize("part", ["id", "title", "image"])
def test_a_mapped_column_that_is_not_there_is_missing(part: str) -> None:
    with pytest.raises(ImportColumnsMissing, match="'nope'"):
        read("id,title,image\n1,Bag,1.jpg\n", {part: "nope"})


@pytest.mark.parametrize("name", ["images", "image_url"])
def test_images_and_image_url_stand_in_for_image(name: str) -> None:
    (row,) = read(f"id,{name}\na,https://shop.example/a.jpg| b.jpg |\n")
    assert isinstance(row, CatalogueRow)
    assert row.images == ("https://shop.example/a.jpg", "b.jpg")


def test_beside_image_they_are_attributes() -> None:
    (row,) = read("id,image,image_url\na,a.jpg,b.jpg\n")
    assert isinstance(row, CatalogueRow)
    assert (row.images, row.attributes) == (("a.jpg",), {"image_url": "b.jpg"})


def test_two_columns_of_one_name_break_the_file() -> None:
    with pytest.raises(ImportFileBroken, match="'colour'"):
        read("id,image,colour,colour\na,a.jpg,red,blue\n")


@pytest.mark.parametrize("content", ["\n", " \n\n", "id,image", "id,image\n", "id,image\n\n,\n"])
def test_a_file_without_rows_is_empty(content: str) -> None:
    with pytest.raises(ImportEmpty):
        read(content)


def test_columns_that_a_filter_cannot_name_are_skipped_and_reported_once() -> None:
    catalogue = reader("id,image,colour,größe,and,,2nd,price.eur\na,a.jpg,red,1,2,3,4,5\nb,b.jpg,red,1,2,3,4,5\n")
    (first, _) = list(catalogue)
    assert isinstance(first, CatalogueRow)
    assert first.attributes == {"colour": "red"}
    assert catalogue.skipped_columns == ["größe", "and", "(unnamed)", "2nd", "price.eur"]


def test_a_reader_reads_the_same_again_and_leaves_the_file_open() -> None:
    file = io.BytesIO(b"id,image\na,a.jpg\nb,b.jpg\n")
    catalogue = open_catalogue(file, "products.csv")
    next(iter(catalogue))
    assert list(catalogue) == list(catalogue)
    assert not file.closed


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@patient
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=20), st.sampled_from(",;\t|"), st.booleans())
def test_whatever_a_writer_quotes_is_read_back(notes: list[tuple[str, str]], delimiter: str, quote_all: bool) -> None:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL)
    writer.writerow(["id", "image", "one", "two"])
    lines = []
    for number, note in enumerate(notes):
        lines.append(len(io.StringIO(file.getvalue(), newline=None).readlines()) + 1)
        writer.writerow([number, "a.jpg", *(f"x{cell}x" for cell in note)])  # x: nothing to trim
    rows = read(file.getvalue())
    assert [row.attributes if isinstance(row, CatalogueRow) else row for row in rows] == [
        {"one": f"x{one}x", "two": f"x{two}x"} for one, two in notes
    ]
    assert [row.line for row in rows] == lines


@patient
@given(st.lists(st.sampled_from([b'"', b"\n", b"\r", b",", b";", b"id", b"image", b"a", b"\xff", b"\0", b" "])))
def test_any_bytes_are_read_or_refused_by_name(pieces: list[bytes]) -> None:
    try:
        rows = read(b"id,image\n" + b"".join(pieces))
    except LookalikeError:
        return
    lines = [row.line for row in rows]
    assert lines == sorted(set(lines)), "each line is reported once, in order"
