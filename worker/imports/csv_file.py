"""CSV as shops export it: any of four delimiters, quoted line ends, and broken rows that cost no other row."""

import csv
from collections import deque
from collections.abc import Iterator, Mapping
from typing import BinaryIO, Self

from shared.errors import ImportEmpty, ImportFileBroken, InvalidRow, RowInvalid
from worker.imports.columns import Columns
from worker.imports.rows import Record, RejectedRow
from worker.imports.text import MAX_ROW_CHARACTERS, choose_encoding, require_decoded, text_lines

DELIMITERS = (",", ";", "\t", "|")
# Broken rows may cost as much reading again as these characters take: some seconds. A file of nothing else would take
# days, so that from then on the lines of a broken row are left out with it.
MAX_CHARACTERS_AGAIN = 64 * MAX_ROW_CHARACTERS


class CsvFile:
    """A CSV file with a header.

    The delimiter is the one that gives the header an id column, else the most cells. Quoting is strict: where a quote
    is not closed, a lenient reader would make one wrong item of many rows.
    """

    values_are_text = True

    def __init__(self, file: BinaryIO, named: Mapping[str, str], encoding: str) -> None:
        self._file = file
        self._encoding = choose_encoding(file, encoding)
        self._delimiter, self._header = self._find_header(named.get("id", "id"))
        self.columns = Columns(self._header, named, are_all_found=True)
        if next(self.records(), None) is None:
            raise ImportEmpty("The file has a header, but no rows.")

    def records(self) -> Iterator[Record | RejectedRow]:
        """Yield the rows below the header."""
        rows = self._rows(self._delimiter)
        next(rows)
        for line, cells in rows:
            if isinstance(cells, InvalidRow):
                yield RejectedRow(line, None, cells)
            elif len(cells) == len(self._header):
                yield Record(line, dict(zip(self._header, cells, strict=True)))
            else:
                yield RejectedRow(line, None, self._wrong_count(cells))

    def _find_header(self, id_column: str) -> tuple[str, list[str]]:
        headers: dict[str, list[str]] = {}
        problem: InvalidRow | None = None
        for delimiter in DELIMITERS:
            _, cells = next(self._rows(delimiter), (0, None))
            if cells is None:
                raise ImportEmpty("The file has neither header nor rows.")
            if isinstance(cells, InvalidRow):
                problem = problem or cells
            else:
                headers[delimiter] = [cell.strip() for cell in cells]
        if not headers:
            raise ImportFileBroken(f"The header can't be read. {problem}") from problem
        return max(headers.items(), key=lambda found: (id_column in found[1], len(found[1])))

    def _rows(self, delimiter: str) -> Iterator[tuple[int, list[str] | InvalidRow]]:
        csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_CHARACTERS))  # of the process; _Lines limits rows
        lines = _Lines(text_lines(self._file, self._encoding))
        reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
        while True:
            lines.begin_row()
            try:
                cells = next(reader)
                for text in lines.row:
                    require_decoded(text, self._encoding)
            except StopIteration:
                return
            except csv.Error as error:
                remedy = "Close every quote, and write a quote within quotes twice."
                yield lines.first, RowInvalid(f"The row is not CSV: {error}. {remedy}")
                lines.return_to_second()
            except InvalidRow as error:
                yield lines.first, error
            else:
                if any(map(str.strip, cells)):
                    yield lines.first, cells

    def _wrong_count(self, cells: list[str]) -> RowInvalid:
        delimiter = "a tab" if self._delimiter == "\t" else repr(self._delimiter)
        is_longer = len(cells) > len(self._header)
        remedy = f"Put a cell that holds {delimiter} into double quotes." if is_longer else "Write empty cells too."
        return RowInvalid(f"The row has {len(cells)} cells, but the header has {len(self._header)}. {remedy}")


class _Lines:
    """Hands csv.reader physical lines, and some of them again after a broken row."""

    def __init__(self, lines: Iterator[tuple[int, str]]) -> None:
        self._lines = lines
        self._again: deque[tuple[int, str]] = deque()
        self._row: list[tuple[int, str]] = []
        self._characters = 0
        self._characters_again = 0

    def begin_row(self) -> None:
        self._row.clear()
        self._characters = 0

    @property
    def first(self) -> int:
        return self._row[0][0]

    @property
    def row(self) -> Iterator[str]:
        return (text for _, text in self._row)

    def return_to_second(self) -> None:
        if self._characters_again + self._characters <= MAX_CHARACTERS_AGAIN:
            self._characters_again += self._characters
            self._again.extendleft(reversed(self._row[1:]))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self._row.append(line)
        self._characters += len(line[1])
        if self._characters > MAX_ROW_CHARACTERS:
            raise csv.Error(f"it is longer than {MAX_ROW_CHARACTERS:,} characters")
        return line[1]
