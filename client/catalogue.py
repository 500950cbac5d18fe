"""Reads just enough of a catalogue file to find the images that it names.

Judging the file is the server's part: what can't be read here is left out without a word.
"""

import codecs
import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

IMAGE_COLUMNS = ("image", "images", "image_url")  # those that the server looks for, in its order
DELIMITERS = ",;\t|"
CSV_CELL_MAX_CHARACTERS = 1024 * 1024
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_rows(file: Path, encoding: str = "utf-8") -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a CSV, NDJSON or Parquet file; none of another kind of file."""
    match file.suffix.lower():
        case ".csv" | ".tsv":
            yield from _read_csv(file, encoding)
        case ".ndjson" | ".jsonl":
            yield from _read_ndjson(file, encoding)
        case ".parquet":
            yield from _read_parquet(file)


def image_references(row: Mapping[str, Any], column: str | None = None) -> list[str]:
    """Return the images that a row names, relative paths and URLs, in their order.

    Args:
        row: values by column.
        column: where they are; None means the first of the usual columns.
    """
    value = row.get(column or next((name for name in IMAGE_COLUMNS if name in row), ""))
    values = value if isinstance(value, list) else str(value or "").split("|")
    return [text for text in (str(entry).strip() for entry in values) if text]


def is_url(reference: str) -> bool:
    """Whether the server is to fetch the image."""
    return reference.lower().startswith(("http://", "https://"))


def relative_name(reference: str) -> str | None:
    """Return a relative path with `/` between its parts; None of a URL and of a path that leads elsewhere."""
    path = PurePosixPath(reference.replace("\\", "/"))
    if is_url(reference) or path.is_absolute() or ".." in path.parts or "\0" in reference:
        return None
    return str(path)


def local_image(folder: Path, reference: str) -> Path | None:
    """Return the file below `folder` that a relative path names; None where there is none."""
    name = relative_name(reference)
    return folder / name if name is not None and (folder / name).is_file() else None


def _read_csv(file: Path, encoding: str) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(CSV_CELL_MAX_CHARACTERS)
    with file.open(encoding=_actual_encoding(file, encoding), errors="replace", newline="") as text:
        header = text.readline()
        delimiter = max(DELIMITERS, key=header.count)
        names = next(csv.reader([header], delimiter=delimiter, skipinitialspace=True), [])
        rows = csv.DictReader(text, [name.strip() for name in names], delimiter=delimiter, skipinitialspace=True)
        while True:
            try:
                yield next(rows)
            except StopIteration:
                return
            except csv.Error:
                continue


def _read_ndjson(file: Path, encoding: str) -> Iterator[Mapping[str, Any]]:
    with file.open(encoding=_actual_encoding(file, encoding), errors="replace") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict):
                yield row


def _read_parquet(file: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow  # slow to import, and only who imports Parquet files needs it
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches():
            yield from batch.to_pylist()
    except pyarrow.ArrowException:
        return


def _actual_encoding(file: Path, stated: str) -> str:
    with file.open("rb") as content:
        head = content.read(4)
    return next((encoding for mark, encoding in _MARKS if head.startswith(mark)), stated)
