"""Parquet: rows with types of their own, made plain."""

import math
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from shared.errors import ImportEmpty, ImportFileBroken, RowInvalid
from worker.imports.columns import Columns
from worker.imports.rows import Record, RejectedRow

BATCH_ROWS = 256
READ_BUFFER_BYTES = 1024 * 1024

# Arrow reports a damaged page as OSError without a number, a damaged schema as one of its own.
_ARROW_ERRORS = (pa.ArrowException, OSError, ValueError, OverflowError)


class ParquetFile:
    """A Parquet file; its lines are its rows, from 1.

    Dates and times become ISO 8601 text, decimals numbers, and NaN, which pandas writes for a missing value, null.
    """

    values_are_text = False

    def __init__(self, file: BinaryIO, named: Mapping[str, str]) -> None:
        self._file = file
        file.seek(0)
        try:
            parquet = self._open()
            names, rows = parquet.schema_arrow.names, parquet.metadata.num_rows
        except _ARROW_ERRORS as error:
            raise _broken(error) from None
        if not rows:
            raise ImportEmpty("The Parquet file has no rows.")
        self.columns = Columns(names, named, are_all_found=True)
        self._wanted = [name for name in names if self.columns.is_wanted(name)]

    def records(self) -> Iterator[Record | RejectedRow]:
        """Yield the rows.

        Raises:
            ImportFileBroken: where a part that was not read before is damaged.
        """
        line = 0
        for batch in self._batches():
            for fields in _rows_of(batch):
                line += 1
                if isinstance(fields, RowInvalid):
                    yield RejectedRow(line, None, fields)
                else:
                    yield Record(line, {name: _plain(value) for name, value in fields.items()})

    def _open(self) -> Any:
        # Without a buffer, Arrow holds whole column chunks: hundreds of MB of a large file.
        return pq.ParquetFile(self._file, buffer_size=READ_BUFFER_BYTES, pre_buffer=False)

    def _batches(self) -> Iterator[Any]:
        try:
            yield from self._open().iter_batches(batch_size=BATCH_ROWS, columns=self._wanted)
        except _ARROW_ERRORS as error:
            raise _broken(error) from None


def _broken(error: Exception) -> Exception:
    if isinstance(error, OSError) and error.errno is not None:
        return error  # the disk or the store failed, not the file
    return ImportFileBroken(f"The Parquet file can't be read: {error}. Was it written and sent completely?")


def _rows_of(batch: Any) -> list[dict[str, Any] | RowInvalid]:
    try:
        return list(batch.to_pylist())
    except (pa.ArrowException, ValueError, OverflowError) as error:
        # A date before the year 1, or text that is not UTF-8: find the row
        if batch.num_rows == 1:
            return [RowInvalid(f"A value of the row can't be read: {error}.")]
        return [row for index in range(batch.num_rows) for row in _rows_of(batch.slice(index, 1))]


def _plain(value: Any) -> Any:
    match value:
        case float():
            return None if math.isnan(value) else value
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case datetime() | date() | time():
            return value.isoformat()
        case bytes():
            return value.decode("utf-8", "surrogateescape")  # rows refuse what is no text
        case list():
            return [_plain(entry) for entry in value]
    return value
