"""Catalogue files with mistakes: a bad row costs itself alone, a bad file the import, each with a stable code."""

import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.pictures import PictureServer, drawing, encoded, picture
from tests.e2e.steps import SCRATCH_IMPORT_MAX_BYTES, all_items, assert_failed, assert_problem, ids_of, put_item
from tests.e2e.tables import csv_of, ndjson_of, parquet_of, pictures_of, zip_of
from tests.stack import Stack

GOOD = [{"id": f"good{n}", "image": [f"good{n}.png"], "colour": "red"} for n in range(3)]
TABLE = csv_of(GOOD)


def errors_of(stack: Stack, job: dict[str, Any]) -> list[tuple[int, str | None, str]]:
    page = stack.get(job["links"]["errors"]).json()
    assert page["next_cursor"] is None
    assert all(error["detail"] for error in page["errors"])
    return [(error["line"], error["item_id"], error["code"]) for error in page["errors"]]


def zipped(table: bytes, name: str = "products.csv") -> bytes:
    return zip_of({name: table, **pictures_of(GOOD)})


@pytest.mark.parametrize(
    ("file", "name", "code"),
    [
        pytest.param(b"sku,title,image\n1,Bag,bag.png\n", "p.csv", "import_columns_missing", id="no id column"),
        pytest.param(b"id,title\n1,Bag\n", "p.csv", "import_columns_missing", id="no image column"),
        pytest.param(b'{"sku": 1, "image": "a.png"}\n', "p.ndjson", "import_columns_missing", id="NDJSON without id"),
        pytest.param(b"id,title,image\n", "p.csv", "import_empty", id="a header alone"),
        pytest.param(b"id,image,image\n1,a,b\n", "p.csv", "import_file_broken", id="a column twice"),
        pytest.param(parquet_of(GOOD)[:-20], "p.parquet", "import_file_broken", id="Parquet cut short"),
        pytest.param(zipped(TABLE)[:-30], "p.zip", "import_file_broken", id="ZIP cut short"),
        pytest.param(encoded(drawing("photo"), "JPEG"), "p.jpg", "import_format_unknown", id="a photo"),
        pytest.param(b'[{"id": 1, "image": "a.png"}]', "p.json", "import_format_unknown", id="a JSON array"),
        pytest.param(zip_of(pictures_of(GOOD)), "p.zip", "import_format_unknown", id="ZIP without a table"),
        pytest.param(
            zip_of({"a.csv": TABLE, "b.csv": TABLE}), "p.zip", "import_format_unknown", id="ZIP with two tables"
        ),
        pytest.param(zip_of({"p.csv": TABLE, "../evil.png": b"x"}), "p.zip", "archive_unsafe", id="ZIP with ../"),
        pytest.param(zip_of({"p.csv": TABLE, "a/../../evil.png": b"x"}), "p.zip", "archive_unsafe", id="deeper ../"),
        pytest.param(zip_of({"p.csv": TABLE, "..\\evil.png": b"x"}), "p.zip", "archive_unsafe", id="ZIP with ..\\"),
        pytest.param(zip_of({"p.csv": TABLE, "/etc/evil.png": b"x"}), "p.zip", "archive_unsafe", id="absolute name"),
    ],
)
def test_a_file_that_is_no_catalogue_fails_its_import_and_changes_nothing(
    scratch_stack: Stack, file: bytes, name: str, code: str
) -> None:
    put_item(scratch_stack, "before", title="Before")
    job = scratch_stack.imported(file, name, mode="replace")
    assert_failed(job, code)
    assert [item["id"] for item in all_items(scratch_stack)] == ["before"]


def test_a_missing_column_is_named_with_those_that_there_are(scratch_stack: Stack) -> None:
    error = assert_failed(scratch_stack.imported(b"sku,title,image\n1,Bag,bag.png\n"), "import_columns_missing")
    assert error["found"] == ["sku", "title", "image"]
    assert "'id'" in error["detail"]


def test_a_zip_bomb_of_one_gigabyte_is_refused_before_it_is_unpacked(scratch_stack: Stack) -> None:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        archive.writestr("products.csv", TABLE)
        with archive.open("good0.png", "w", force_zip64=True) as member:
            for _ in range(64):
                member.write(bytes(16 * 1024 * 1024))
        for name, data in pictures_of(GOOD[1:]).items():
            archive.writestr(name, data)
    job = scratch_stack.imported(file.getvalue(), "bomb.zip")
    assert "1,073,741,824" in assert_failed(job, "archive_too_large")["detail"]
    assert all_items(scratch_stack) == []


def test_an_upload_that_is_empty_or_too_large_is_refused_before_any_job(scratch_stack: Stack) -> None:
    assert_problem(scratch_stack.post("/v1/imports", files={"file": ("p.csv", b"")}), 422, "import_empty")
    too_large = TABLE.ljust(SCRATCH_IMPORT_MAX_BYTES + 1)
    problem = assert_problem(
        scratch_stack.post("/v1/imports", files={"file": ("p.csv", too_large)}), 413, "import_too_large"
    )
    assert problem["limit_bytes"] == SCRATCH_IMPORT_MAX_BYTES
    assert_problem(scratch_stack.post("/v1/imports", files={"table": ("p.csv", TABLE)}), 422, "invalid_parameter")


@pytest.mark.parametrize(
    "fields", [{"mode": "merge"}, {"format": "xlsx"}, {"columns": "sku"}, {"columns": '{"sku": "id"}'}, {"modus": "x"}]
)
def test_a_wrong_option_of_an_import_is_named(scratch_stack: Stack, fields: dict[str, str]) -> None:
    answer = scratch_stack.post("/v1/imports", files={"file": ("p.csv", TABLE)}, data=fields)
    assert next(iter(fields)) in assert_problem(answer, 422, "invalid_parameter")["detail"]


def test_an_encoding_that_there_is_not_fails_the_import(scratch_stack: Stack) -> None:
    assert "utf-8" in assert_failed(scratch_stack.imported(TABLE, encoding="klingon"), "invalid_parameter")["detail"]


@pytest.mark.parametrize(
    "path", ["../secret.csv", "/etc/passwd", "a/../../b.csv", "nothing.csv", "", "a\0.csv", "n" * 1000, "out/hosts"]
)
def test_a_path_outside_of_the_import_root_is_refused(scratch_stack: Stack, import_root: Path, path: str) -> None:
    link = import_root / "out"
    if not link.is_symlink():
        link.symlink_to("/etc")
    assert_problem(scratch_stack.post("/v1/imports", json={"path": path}), 422, "path_refused")


def test_a_bad_row_in_the_middle_costs_no_other_row(scratch_stack: Stack) -> None:
    table = (
        b"id,title,image,price\n"
        b"first,First,good0.png,5\n"
        b"short,Too few cells\n"
        b",No id,good0.png,5\n"
        b"bad id,Space,good0.png,5\n"
        b"blind,No image,,5\n"
        b'"two\nlines","id over two lines",good0.png,5\n'
        b"lost,Missing file,nowhere.png,5\n"
        b"cut,Broken file,cut.png,5\n"
        b"drawing,SVG,drawing.svg,5\n"
        b"climber,Outside,../good0.png,5\n"
        b"last,Last,good1.png|good2.png,7.5\n"
    )
    members = {"cut.png": picture("cut")[:-300], "drawing.svg": b"<svg/>", **pictures_of(GOOD)}
    job = scratch_stack.imported(zip_of({"p.csv": table, **members}), "c.zip")

    assert (job["status"], job["result"]["rows"], job["result"]["imported"]) == ("succeeded", 11, 2)
    assert (job["progress"]["done"], job["progress"]["failed"]) == (11, 9)
    assert errors_of(scratch_stack, job) == [
        (3, None, "row_invalid"),
        (4, None, "row_invalid"),
        (5, None, "row_invalid"),
        (6, "blind", "image_missing"),
        (7, None, "row_invalid"),
        (9, "lost", "image_missing"),
        (10, "cut", "image_broken"),
        (11, "drawing", "image_unsupported"),
        (12, "climber", "path_refused"),
    ]
    assert [item["id"] for item in all_items(scratch_stack)] == ["first", "last"]
    assert ids_of(scratch_stack.search(picture("good2.png")))[0] == "last"


def test_of_rows_with_one_id_the_first_counts(scratch_stack: Stack) -> None:
    rows = [{"id": "same", "title": title, "image": ["good0.png"]} for title in ("First", "Second", "Third")]
    job = scratch_stack.imported(zipped(ndjson_of(rows), "p.ndjson"), "c.zip")
    assert (job["result"]["imported"], job["result"]["failed"]) == (1, 2)
    assert errors_of(scratch_stack, job) == [(2, "same", "duplicate_id"), (3, "same", "duplicate_id")]
    assert [item["title"] for item in all_items(scratch_stack)] == ["First"]


def test_a_byte_order_mark_is_not_part_of_the_first_column(scratch_stack: Stack) -> None:
    for table in (b"\xef\xbb\xbf" + TABLE, TABLE.decode().encode("utf-16")):
        job = scratch_stack.imported(zipped(table), "c.zip")
        assert (job["status"], job["result"]["imported"], job["result"]["failed"]) == ("succeeded", 3, 0)


def test_latin_1_bytes_cost_their_row_until_the_encoding_is_told(scratch_stack: Stack) -> None:
    table = "id,title,image\na,Träger,good0.png\nb,Bag,good1.png\n".encode("latin-1")
    job = scratch_stack.imported(zipped(table), "c.zip")
    assert (job["result"]["imported"], job["result"]["failed"]) == (1, 1)
    assert errors_of(scratch_stack, job) == [(2, None, "row_encoding")]
    told = scratch_stack.imported(zipped(table), "c.zip", encoding="latin-1")
    assert (told["result"]["imported"], told["result"]["failed"]) == (2, 0)
    assert {item["title"] for item in all_items(scratch_stack)} == {"Träger", "Bag"}


def test_a_value_of_another_type_than_the_catalogues_costs_its_row(scratch_stack: Stack) -> None:
    put_item(scratch_stack, "typed", attributes={"weight": 1.5})
    rows = [
        {"id": "light", "image": ["good0.png"], "weight": "0.5"},
        {"id": "x", "image": ["good0.png"], "weight": "?"},
    ]
    job = scratch_stack.imported(zipped(csv_of(rows)), "c.zip")
    assert errors_of(scratch_stack, job) == [(3, "x", "attribute_type_mismatch")]
    assert scratch_stack.get("/v1/items/light").json()["attributes"] == {"weight": 0.5}


def test_pictures_by_url_that_fail_cost_their_row(scratch_stack: Stack, shop: PictureServer) -> None:
    base = shop.add("/", b"")
    pictures = {"fine": shop.add("/fine.png", picture("fine")), "gone": base + "gone.png", "ftp": "ftp://a.example/b"}
    pictures |= {"text": shop.add("/text.png", b"Not found"), "meta": "http://169.254.169.254/latest", "path": "a.png"}
    job = scratch_stack.imported(csv_of([{"id": name, "image": [url]} for name, url in pictures.items()]))
    codes = {item_id: code for _, item_id, code in errors_of(scratch_stack, job)}
    assert codes == {
        "gone": "image_fetch_failed",
        "ftp": "url_refused",
        "text": "image_unsupported",
        "meta": "url_refused",
        "path": "image_missing",
    }
    assert [item["id"] for item in all_items(scratch_stack)] == ["fine"]


def test_errors_are_read_page_by_page(scratch_stack: Stack) -> None:
    table = b"id,image\n" + b"".join(b"row%d,nowhere%d.png\n" % (n, n) for n in range(25))
    job = scratch_stack.imported(zipped(table), "c.zip")
    assert (job["status"], job["result"]["failed"]) == ("succeeded", 25)
    lines: list[int] = []
    query: dict[str, Any] = {"limit": 10}
    sizes = []
    while True:
        page = scratch_stack.get(job["links"]["errors"], params=query).json()
        sizes.append(len(page["errors"]))
        lines += [error["line"] for error in page["errors"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert (lines, sizes) == (list(range(2, 27)), [10, 10, 5])
    for query_text in ("limit=0", "limit=1001", "cursor=next", "cursor=-1", f"cursor={'9' * 30}", "cursor=%C2%B2"):
        assert_problem(scratch_stack.get(f"{job['links']['errors']}?{query_text}"), 422, "invalid_parameter")
