import io
import zipfile
from contextlib import suppress
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import ImportEmpty, ImportFormatUnknown
from worker.imports.formats import Format, detect_format

# A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"id": ["a"]}), file)
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("products.csv", "id,image\n")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        (b"id,image\n", "", "csv"),
        (b"id\timage\n", "products.tsv", "csv"),
        (b"\xef\xbb\xbfid,image\n", "", "csv"),
        ("id;image\n".encode("utf-16"), "", "csv"),
        (b'{"id": 1}\n', "", "ndjson"),
        (b'\xef\xbb\xbf\n {"id": 1}\n', "upload.bin", "ndjson"),
        ('{"id": 1}\n'.encode("utf-16"), "", "ndjson"),
        (b"{braces},image\n", "folder/products.CSV", "csv"),
        (b"id,image\na,\0b\n", "products.csv", "csv"),
        (parquet(), "products.csv", "parquet"),
        (zipped(), "", "zip"),
    ],
)
def test_the_content_tells_the_format_and_the_name_settles_the_rest(content: bytes, name: str, expected: str) -> None:
    file = io.BytesIO(content)
    assert detect_format(file, name) == expected
    assert file.tell() == 0


def test_a_stated_text_format_outranks_what_the_content_looks_like() -> None:
    assert detect_format(io.BytesIO(b'{"id": 1}'), "a.ndjson", "csv") == "csv"


@pytest.mark.parametrize(
    ("content", "stated"), [(b"id,image\n", "parquet"), (b"id,image\n", "zip"), (zipped(), "csv"), (parquet(), "zip")]
)
def test_a_stated_format_that_the_content_belies_is_refused(content: bytes, stated: Format) -> None:
    with pytest.raises(ImportFormatUnknown, match=f"said to be {stated}"):
        detect_format(io.BytesIO(content), "", stated)


@pytest.mark.parametrize(
    ("content", "name", "remedy"),
    [
        (b"\x1f\x8b\x08rest", "products.csv.gz", "unpack"),
        (b"\xff\xd8\xff\xe0JFIF", "shoe.jpg", "JPEG"),
        (b"%PDF-1.7", "", "CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "products.xls", "CSV"),
        (zipped(), "products.xlsx", "CSV"),
        (b'[{"id": 1}]', "products.json", "jq"),
        (b"id,image\n", "products.parquet", "completely"),
        (b"\x00\x01\x02", "", "binary"),
    ],
)
def test_other_files_are_refused_with_a_remedy(content: bytes, name: str, remedy: str) -> None:
    with pytest.raises(ImportFormatUnknown, match=remedy):
        detect_format(io.BytesIO(content), name)


def test_a_file_without_bytes_is_empty() -> None:
    with pytest.raises(ImportEmpty):
        detect_format(io.BytesIO(), "products.csv")


@patient
@given(st.binary(max_size=64), st.sampled_from(["", "a.csv", "a.jsonl", "a.parquet", "a.xlsx"]))
def test_any_bytes_have_a_format_or_a_named_error(content: bytes, name: str) -> None:
    file: BinaryIO = io.BytesIO(content)
    with suppress(ImportFormatUnknown, ImportEmpty):
        assert detect_format(file, name) in ("csv", "ndjson", "parquet", "zip")
