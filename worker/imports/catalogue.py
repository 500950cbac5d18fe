"""A catalogue file, row by row."""

from collections.abc import Iterator, Mapping
from typing import BinaryIO, Protocol

from shared.errors import DuplicateId, ImportFormatUnknown
from worker.imports.columns import Columns
from worker.imports.csv_file import CsvFile
from worker.imports.formats import Format, detect_format
from worker.imports.ndjson_file import NdjsonFile
from worker.imports.rows import CatalogueRow, Record, RejectedRow, Row, read_row


class RecordFile(Protocol):
    """What the three formats have in common."""

    columns: Columns
    values_are_text: bool

    def records(self) -> Iterator[Record | RejectedRow]:
        """Yield the rows of the file, from its start; one such pass at a time."""


class CatalogueReader:
    """Iterates over the rows of a catalogue file, each time from its start, in the same way.

    Of rows with the same id the first valid one counts. Only one iteration may be under way at a time, since all
    read the one file, and the caller keeps that open.

    Attributes:
        values_are_text: whether values have no types of their own, as in CSV.
    """

    def __init__(self, source: RecordFile) -> None:
        self._source = source
        self.values_are_text = source.values_are_text

    @property
    def skipped_columns(self) -> list[str]:
        """Columns that are not read since a filter can't name them; of NDJSON, those met so far."""
        return list(self._source.columns.skipped)

    def __iter__(self) -> Iterator[Row]:
        lines: dict[str, int] = {}
        for record in self._source.records():
            row = record if isinstance(record, RejectedRow) else read_row(record, self._source.columns)
            if isinstance(row, CatalogueRow) and (first := lines.setdefault(row.item_id, row.line)) != row.line:
                row = RejectedRow(
                    row.line,
                    row.item_id,
                    DuplicateId(f"Line {first} has the same id {row.item_id!r} and was taken. Give each item its own."),
                )
            yield row


def open_catalogue(
    file: BinaryIO,
    name: str = "",
    *,
    stated: Format | None = None,
    columns: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
) -> CatalogueReader:
    """Open a CSV, NDJSON or Parquet file.

    Args:
        file: binary and seekable; stays open and must stay so while rows are read.
        name: its name, which helps to tell the format.
        stated: the format, if the client says it.
        columns: the file's names for `id`, `title` and `image` where they differ.
        encoding: of CSV and NDJSON; a byte order mark outranks it.

    Raises:
        ImportEmpty: the file has no rows.
        ImportFormatUnknown: it is neither of the three.
        ImportFileBroken: it can't be read as what it is.
        ImportColumnsMissing: it has no column for id or image.
        InvalidParameter: there is no such encoding.
    """
    kind = detect_format(file, name, stated)
    named = columns or {}
    if kind == "csv":
        return CatalogueReader(CsvFile(file, named, encoding))
    if kind == "ndjson":
        return CatalogueReader(NdjsonFile(file, named, encoding))
    if kind == "parquet":
        # pyarrow takes a while and 60 MB: only for those who need it
        from worker.imports.parquet_file import ParquetFile

        return CatalogueReader(ParquetFile(file, named))
    raise ImportFormatUnknown("The catalogue within the ZIP is a ZIP itself. Pack the table and its photos once.")
