"""Catalogue files of every format, written from the same rows."""

import csv
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.e2e.pictures import picture

Row = dict[str, Any]


def attributes_of(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in ("id", "title", "image")}


def csv_of(rows: list[Row], delimiter: str = ",") -> bytes:
    file = io.StringIO(newline="")
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(file, names, delimiter=delimiter)
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "image": "|".join(row["image"])})
    return file.getvalue().encode()


def ndjson_of(rows: list[Row]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def parquet_of(rows: list[Row]) -> bytes:
    file = io.BytesIO()
    schema = pa.unify_schemas(pa.Table.from_pylist([row]).schema for row in rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
    return file.getvalue()


def zip_of(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def pictures_of(rows: list[Row]) -> dict[str, bytes]:
    return {name: picture(name) for row in rows for name in row["image"]}


FORMATS: dict[str, Callable[[list[Row]], bytes]] = {"csv": csv_of, "ndjson": ndjson_of, "parquet": parquet_of}
