import io
from contextlib import suppress
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import ImportColumnsMissing, ImportEmpty, ImportFileBroken
from worker.imports.catalogue import CatalogueReader, open_catalogue
from worker.imports.rows import CatalogueRow, RejectedRow

# A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def packed(columns: dict[str, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, **options)
    return file.getvalue()


def reader(columns: dict[str, Any], named: dict[str, str] | None = None) -> CatalogueReader:
    return open_catalogue(io.BytesIO(packed(columns)), columns=named)


def item(columns: dict[str, Any]) -> CatalogueRow:
    (row,) = reader({"id": ["a"], "image": ["a.jpg"], **columns})
    assert isinstance(row, CatalogueRow)
    return row


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([date(2024, 2, 29)]), "2024-02-29"),
        (pa.array([datetime(2024, 2, 29, 12, tzinfo=UTC)]), "2024-02-29T12:00:00+00:00"),
        (pa.array([1], pa.timestamp("ns")), "1970-01-01T00:00:00.000000001"),
        (pa.array([time(9, 30)]), "09:30:00"),
        (pa.array([Decimal("12.50")]), 12.5),
        (pa.array([Decimal("12.00")]), 12),
        (pa.array([3], pa.int8()), 3),
        (pa.array([0.5], pa.float32()), 0.5),
        (pa.array([True]), True),
        (pa.array(["red"]).dictionary_encode(), "red"),
        (pa.array([b"red"]), "red"),
    ],
)
def test_values_become_what_json_can_hold(values: pa.Array, expected: object) -> None:
    value = item({"x": values}).attributes["x"]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_null_and_nan_are_absent(missing: float | None) -> None:
    assert item({"x": pa.array([missing], pa.float64())}).attributes == {}


def test_ids_that_pandas_made_floats_stay_whole() -> None:
    assert [row.item_id for row in reader({"id": [10000.0, 10001.0], "image": ["a", "b"]})] == ["10000", "10001"]


def test_images_come_as_a_list_column() -> None:
    assert item({"image": [["front.jpg", "back.jpg"]]}).images == ("front.jpg", "back.jpg")


def test_lines_are_row_numbers_also_beyond_one_batch() -> None:
    rows = list(reader({"id": list(range(1000)), "image": ["a.jpg"] * 1000}))
    assert [(row.line, row.item_id) for row in rows] == [(n + 1, str(n)) for n in range(1000)]


def test_a_name_with_a_dot_can_be_mapped() -> None:
    (row,) = reader({"product.id": ["a"], "product.name": ["Bag"], "image": ["a.jpg"]}, {"id": "product.id"})
    assert row.item_id == "a"


@pytest.mark.parametrize(
    "bad",
    [
        pa.array([None, -800_000, None], pa.date32()),  # before the year 1
        pa.array(["x", b"\xff", "y"], pa.binary()),
        pa.array([None, {"eu": 42}, None]),
        pa.array([None, [1], None]),
        pa.array([1.0, float("inf"), 1.0]),
        pa.array([1, 2**63, 1], pa.uint64()),
        pa.StringArray.from_buffers(3, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffb")),
    ],
)
def test_a_value_that_cannot_be_read_costs_its_row_alone(bad: pa.Array) -> None:
    rows = list(reader({"id": ["a", "b", "c"], "image": ["a.jpg"] * 3, "x": bad}))
    assert [type(row) for row in rows] == [CatalogueRow, RejectedRow, CatalogueRow]
    assert (rows[1].line, rows[1].error.code) == (2, "row_invalid") if isinstance(rows[1], RejectedRow) else False


def test_skipped_columns_are_not_even_read() -> None:
    unreadable = pa.array([-800_000], pa.date32())
    catalogue = reader({"id": ["a"], "image": ["a.jpg"], "größe": unreadable})
    assert [type(row) for row in catalogue] == [CatalogueRow]
    assert catalogue.skipped_columns == ["größe"]


def test_missing_columns_rows_and_names_are_refused() -> None:
    with pytest.raises(ImportColumnsMissing, match="'sku'"):
        reader({"sku": ["a"], "image": ["a.jpg"]})
    with pytest.raises(ImportEmpty):
        reader({"id": pa.array([], pa.string()), "image": pa.array([], pa.string())})
    file = io.BytesIO()
    pq.write_table(pa.table([["a"], ["b"], ["c"]], names=["id", "image", "image"]), file)
    with pytest.raises(ImportFileBroken, match="more than one column 'image'"):
        open_catalogue(file)


def test_a_truncated_file_is_broken() -> None:
    with pytest.raises(ImportFileBroken, match="completely"):
        open_catalogue(io.BytesIO(packed({"id": ["a"], "image": ["a.jpg"]})[:-20]))


def test_the_file_is_read_twice_and_stays_open() -> None:
    file = io.BytesIO(packed({"id": ["a", "b"], "image": ["a.jpg", "b.jpg"]}))
    catalogue = open_catalogue(file)
    assert list(catalogue) == list(catalogue) != []
    del catalogue
    assert not file.closed


PAGES = packed({"id": [str(n) for n in range(300)], "image": ["a.jpg"] * 300}, compression="snappy")


@patient
@given(st.integers(4, len(PAGES) - 1), st.integers(1, 255))
def test_a_damaged_byte_is_named_or_harmless(position: int, flip: int) -> None:
    damaged = bytearray(PAGES)
    damaged[position] ^= flip
    with suppress(ImportFileBroken, ImportColumnsMissing, ImportEmpty):
        rows = list(open_catalogue(io.BytesIO(bytes(damaged))))
        assert [row.line for row in rows] == list(range(1, len(rows) + 1))
