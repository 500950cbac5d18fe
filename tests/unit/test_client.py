"""The client's own work, without a server: packing, uploading, arguments, what it shows."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import requests
from click.testing import CliRunner
from rich.console import Console
from werkzeug.formparser import parse_form_data

from client.__main__ import client
from client.catalogue import image_references, read_rows
from client.output import hits_table, import_summary, print_search, search_summary
from client.packing import packed
from client.problems import error_from_response
from client.upload import CHUNK_BYTES, MultipartFile

JPEG = b"\xff\xd8 not really a photo"


def _folder(tmp_path: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path


def _packed_names(file: Path, column: str | None = None, encoding: str = "utf-8") -> list[str] | None:
    with packed(file, column, encoding) as archive:
        if archive == file:
            return None
        with zipfile.ZipFile(archive) as opened:
            assert all(member.compress_type == zipfile.ZIP_STORED for member in opened.infolist())
            assert opened.read(file.name) == file.read_bytes()
            return sorted(opened.namelist())


# Packing


def test_a_catalogue_is_packed_with_each_image_once(tmp_path: Path) -> None:
    csv = "id,image\na,images/1.jpg|images/2.jpg\nb,images/1.jpg\n"
    folder = _folder(tmp_path, {"products.csv": csv, "images/1.jpg": JPEG, "images/2.jpg": JPEG, "images/3.jpg": JPEG})
    assert _packed_names(folder / "products.csv") == ["images/1.jpg", "images/2.jpg", "products.csv"]


def test_the_archive_is_gone_afterwards_and_the_catalogue_stays(tmp_path: Path) -> None:
    folder = _folder(tmp_path, {"products.csv": "id,image\na,1.jpg\n", "1.jpg": JPEG})
    with packed(folder / "products.csv", None, "utf-8") as archive:
        assert archive.exists()
    assert not archive.exists()
    assert (folder / "products.csv").exists()


def test_the_number_of_packed_images_is_told(tmp_path: Path) -> None:
    folder = _folder(tmp_path, {"products.csv": "id,image\na,1.jpg|2.jpg\n", "1.jpg": JPEG, "2.jpg": JPEG})
    told: list[int] = []
    with packed(folder / "products.csv", None, "utf-8", told.append):
        assert told == [1, 2]


def test_images_that_lie_elsewhere_or_nowhere_are_not_packed(tmp_path: Path) -> None:
    rows = "id,image\na,../secret.jpg\nb,/etc/hostname\nc,missing.jpg\nd,https://example.com/1.jpg\ne,ok.jpg\n"
    folder = _folder(tmp_path, {"secret.jpg": JPEG, "shop/products.csv": rows, "shop/ok.jpg": JPEG})
    assert _packed_names(folder / "shop/products.csv") == ["ok.jpg", "products.csv"]


def test_a_catalogue_of_urls_is_sent_as_it_is(tmp_path: Path) -> None:
    folder = _folder(tmp_path, {"products.csv": "id,image\na,https://example.com/1.jpg\n"})
    assert _packed_names(folder / "products.csv") is None


def test_a_file_of_another_kind_is_sent_as_it_is(tmp_path: Path) -> None:
    folder = _folder(tmp_path, {"products.zip": b"PK\x03\x04", "products.xlsx": b"PK"})
    assert _packed_names(folder / "products.zip") is None
    assert _packed_names(folder / "products.xlsx") is None


@pytest.mark.parametrize("reference", ["images/1.jpg", "./images/1.jpg", "images//1.jpg", r"images\1.jpg"])
def test_a_path_is_packed_under_the_name_that_the_server_looks_up(tmp_path: Path, reference: str) -> None:
    folder = _folder(tmp_path, {"products.csv": f"id,image\na,{reference}\n", "images/1.jpg": JPEG})
    assert _packed_names(folder / "products.csv") == ["images/1.jpg", "products.csv"]


def test_ndjson_names_images_by_text_or_by_list_and_its_broken_lines_are_passed_over(tmp_path: Path) -> None:
    lines = '{"id": "a", "image": "1.jpg"}\nbroken\n[1]\n{"id": "b", "image": ["2.jpg", "3.jpg"]}\n{"id": "c"}\n'
    folder = _folder(tmp_path, {"p.ndjson": lines, "1.jpg": JPEG, "2.jpg": JPEG, "3.jpg": JPEG})
    assert _packed_names(folder / "p.ndjson") == ["1.jpg", "2.jpg", "3.jpg", "p.ndjson"]


def test_parquet_is_packed_too(tmp_path: Path) -> None:
    folder = _folder(tmp_path, {"1.jpg": JPEG, "2.jpg": JPEG})
    table = pyarrow.table({"id": ["a", "b"], "image": [["1.jpg", "2.jpg"], None]})
    pyarrow.parquet.write_table(table, folder / "p.parquet")
    assert _packed_names(folder / "p.parquet") == ["1.jpg", "2.jpg", "p.parquet"]


def test_a_broken_parquet_file_is_left_to_the_server(tmp_path: Path) -> None:
    folder = _folder(tmp_path, {"p.parquet": b"PAR1 nonsense"})
    assert _packed_names(folder / "p.parquet") is None


def test_the_image_column_may_have_another_name(tmp_path: Path) -> None:
    folder = _folder(tmp_path, {"p.csv": "id,image,picture\na,2.jpg,1.jpg\n", "1.jpg": JPEG, "2.jpg": JPEG})
    assert _packed_names(folder / "p.csv", "picture") == ["1.jpg", "p.csv"]


@pytest.mark.parametrize("column", ["image", "images", "image_url"])
def test_the_usual_image_columns_are_found(column: str) -> None:
    assert image_references({"id": "a", column: " 1.jpg | 2.jpg |"}) == ["1.jpg", "2.jpg"]


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("id,image\na,é.jpg\n".encode(), "utf-8"),
        ("id,image\na,é.jpg\n".encode("utf-8-sig"), "utf-8"),
        ("id,image\na,é.jpg\n".encode("latin-1"), "latin-1"),
        ("id,image\na,é.jpg\n".encode("utf-16"), "utf-8"),
        (b"id;image\r\na;\xc3\xa9.jpg\r\n", "utf-8"),
        (b"id\timage\r\na\t\xc3\xa9.jpg\r\n", "utf-8"),
        (b'"id", "image"\n"a", "\xc3\xa9.jpg"\n', "utf-8"),
    ],
    ids=["utf-8", "byte order mark", "latin-1", "utf-16", "semicolons", "tabs", "quotes and spaces"],
)
def test_csv_is_read_as_the_server_reads_it(tmp_path: Path, content: bytes, encoding: str) -> None:
    file = _folder(tmp_path, {"p.csv": content}) / "p.csv"
    assert [dict(row) for row in read_rows(file, encoding)] == [{"id": "a", "image": "é.jpg"}]


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    assert list(read_rows(_folder(tmp_path, {"p.csv": ""}) / "p.csv")) == []


# Uploading


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 7])
def test_a_web_server_s_parser_reads_back_what_was_sent(size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    sent: list[tuple[int, int]] = []
    fields = {"mode": "upsert", "columns": '{"id": "sku"}'}
    body = MultipartFile(
        fields, io.BytesIO(content[:size]), 'my "best"\n.csv', lambda done, total: sent.append((done, total))
    )
    stream = b"".join(body)
    assert len(stream) == len(body)
    assert sent[-1] == (len(body), len(body))
    _, form, files = parse_form_data(
        {
            "REQUEST_METHOD": "POST",
            "CONTENT_TYPE": body.content_type,
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(stream),
        }
    )
    assert form.to_dict() == fields
    assert files["file"].read() == content[:size]
    files["file"].close()


def test_requests_streams_the_body_with_its_length_known() -> None:
    body = MultipartFile({}, io.BytesIO(b"abc"), "p.csv", lambda done, total: None)
    prepared = requests.Request("POST", "http://127.0.0.1/", data=body).prepare()
    assert prepared.headers["Content-Length"] == str(len(body))
    assert "Transfer-Encoding" not in prepared.headers
    sent: object = prepared.body
    assert sent is body


# Problems


def _response(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> requests.Response:
    response = requests.Response()
    response.status_code, response.reason, response.url = status, "Reason", "http://127.0.0.1:8000/v1/searches"
    response.raw = io.BytesIO(body)
    response.headers.update(headers or {})
    return response


def test_a_problem_body_becomes_one_line_with_its_code() -> None:
    problem = {"title": "t", "status": 400, "detail": "k must be\n at most 100.", "code": "invalid_parameter"}
    error = error_from_response(_response(400, json.dumps(problem).encode()))
    assert str(error) == "k must be at most 100. (invalid_parameter, HTTP 400)"
    assert error.code == "invalid_parameter"
    assert not error.is_passing


@pytest.mark.parametrize("body", [b"<h1>Bad gateway</h1>", b"[]", b""])
def test_an_answer_that_is_no_problem_body_is_reported_by_its_status(body: bytes) -> None:
    error = error_from_response(_response(502, body, {"Retry-After": "7"}))
    assert str(error) == "http://127.0.0.1:8000/v1/searches answered Reason (HTTP 502)"
    assert error.is_passing
    assert error.retry_after_seconds == 7


# Arguments


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["search"], "exactly one of PHOTO, --url and --item"),
        (["search", "--url", "http://a/b", "--item", "x"], "exactly one of PHOTO, --url and --item"),
        (["search", "--item", "x", "-k", "0"], "0 is not in the range 1<=x<=100"),
        (["search", "--item", "x", "--min-score", "2"], "not in the range"),
        (["search", "--item", "x", "--filter", "{colour: red}"], "not JSON"),
        (["search", "--item", "x", "--filter", "[1]"], "not a JSON object"),
        (["search", "--item", "x", "--crop", "0,0,1"], "not four numbers"),
        (["search", "--item", "x", "--crop", "0,0,1,wide"], "not four numbers"),
        (["search", "no-such-photo.jpg"], "does not exist"),
        (["import"], "exactly one of FILE and --server-path"),
        (["import", "--server-path", "p.csv", "--column", "sku"], "ROLE=COLUMN"),
        (["import", "--server-path", "p.csv", "--column", "price=cost"], "ROLE=COLUMN"),
        (["import", "--server-path", "p.csv", "--mode", "append"], "append"),
        (["watch"], "Missing argument 'JOB'"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_sent(arguments: list[str], complaint: str) -> None:
    # Port 9 (discard) has no server: a request would end with another message and status 1.
    result = CliRunner().invoke(client, ["--server", "http://127.0.0.1:9", *arguments])
    assert result.exit_code == 2
    assert complaint in " ".join(result.output.split())


# What it shows


def _shown(value: Any) -> str:
    output = io.StringIO()
    Console(file=output, width=160, force_terminal=False).print(value)
    return output.getvalue()


HIT = {
    "rank": 1,
    "item_id": "sku-1",
    "score": 0.98765,
    "title": "[bold]Red\x1b[31m bag[/bold]",
    "attributes": {"colour": "red", "price": 19.5},
    "image_url": "/v1/items/sku-1/image",
}
RESULT = {
    "hits": [HIT],
    "reason": None,
    "answered_from": "embedding_cache",
    "timings_ms": {"queue": 1.0, "search": 2.25, "total": 3.5},
}


def test_hits_are_shown_as_text_whatever_the_catalogue_holds() -> None:
    shown = _shown(hits_table(RESULT))
    assert "[bold]Red [31m bag[/bold]" in shown
    assert "\x1b" not in shown
    assert "0.9877" in shown
    assert "colour=red, price=19.5" in shown


def test_a_search_says_where_it_was_answered_and_how_long_each_step_took() -> None:
    assert search_summary(RESULT) == "answered from embedding cache in 3.5 ms (queue 1.0, search 2.2)"
    assert search_summary({**RESULT, "timings_ms": {"total": 0.5}}) == "answered from embedding cache in 0.5 ms"


def test_a_search_without_hits_says_why() -> None:
    output = io.StringIO()
    print_search(Console(file=output), {**RESULT, "hits": [], "reason": "no_item_matches_filter"})
    assert output.getvalue().startswith("No hits: no item matches filter.\n")


def test_an_import_is_summed_up_in_one_line() -> None:
    result = {"rows": 8024, "imported": 8023, "failed": 1, "deleted": 0, "embedded": 12}
    assert import_summary(result) == "8,023 of 8,024 rows imported, 12 images embedded, 1 row left out"
    assert "3 items deleted" in import_summary({**result, "deleted": 3})
    assert import_summary({**result, "near_duplicates": 1}).endswith("1 row left out, 1 near-duplicate found")
