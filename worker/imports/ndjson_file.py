"""NDJSON: one JSON object a line."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, BinaryIO, NoReturn

from shared.errors import ImportEmpty, ImportFileBroken, InvalidRow, RowInvalid
from worker.imports.columns import Columns
from worker.imports.rows import Record, RejectedRow, shown
from worker.imports.text import MAX_ROW_CHARACTERS, choose_encoding, is_overlong, require_decoded, text_lines

# Objects need not have the same keys: these tell whether the file has a column at all.
SAMPLE_OBJECTS = 100


class NdjsonFile:
    """A file of JSON objects, each with the values of one item."""

    values_are_text = False

    def __init__(self, file: BinaryIO, named: Mapping[str, str], encoding: str) -> None:
        self._file = file
        self._encoding = choose_encoding(file, encoding)
        sample = list(islice(self.records(), SAMPLE_OBJECTS))
        if not sample:
            raise ImportEmpty("The file has no JSON objects.")
        objects = [record.fields for record in sample if isinstance(record, Record)]
        if not objects:
            problem = next(record for record in sample if isinstance(record, RejectedRow))
            raise ImportFileBroken(f"The file doesn't begin as NDJSON. Line {problem.line}: {problem.error}")
        found = dict.fromkeys(name for fields in objects for name in fields)
        self.columns = Columns(list(found), named, are_all_found=False)

    def records(self) -> Iterator[Record | RejectedRow]:
        """Yield the objects, blank lines left out."""
        for number, line in text_lines(self._file, self._encoding):
            if line.isspace():
                continue
            try:
                require_decoded(line, self._encoding)
                yield Record(number, _parse(line))
            except InvalidRow as error:
                yield RejectedRow(number, None, error)


def _parse(line: str) -> dict[str, Any]:
    if is_overlong(line):
        raise RowInvalid(f"The line is longer than {MAX_ROW_CHARACTERS:,} characters. Write one object a line.")
    try:
        value = json.loads(line, parse_constant=_refuse_constant, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        raise RowInvalid(
            f"The line is not JSON: {error.msg} at character {error.colno}. Write one whole object a line."
        ) from None
    except RecursionError:
        raise RowInvalid("The line is nested too deeply. Write one flat object.") from None
    except ValueError:  # Python converts no integer of thousands of digits
        raise RowInvalid("The line holds a number with too many digits. Write it as text.") from None
    if not isinstance(value, dict):
        raise RowInvalid(f"The line is {shown(value)}, but an item is an object: {{...}}.")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise RowInvalid(f"The line holds {name}, which is not JSON. Leave it out, or write null.")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        repeated = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise RowInvalid(f"The object has {shown(repeated)} more than once. Leave all but one out.")
    return fields
