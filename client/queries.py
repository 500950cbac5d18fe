"""The queries of a batch search as a file of this machine names them: ids, or NDJSON."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

BOM = b"\xef\xbb\xbf"


def is_ndjson(file: Path) -> bool:
    """Whether the file begins with a JSON object; else each line is an item's id."""
    with file.open("rb") as content:
        first = next((line for line in content if line.removeprefix(BOM).strip()), b"")
    return first.removeprefix(BOM).lstrip().startswith(b"{")


@contextmanager
def lines_of(file: Path, terms: Mapping[str, Any]) -> Iterator[BinaryIO]:
    """Open NDJSON as it is, or made of ids; it closes with the block.

    Args:
        file: NDJSON, or one id a line.
        terms: k, filter and the like, which go with each id.
    """
    if is_ndjson(file):
        with file.open("rb") as content:
            yield content
        return
    with TemporaryFile() as made, file.open("rb") as ids:
        for line in ids:
            text = line.removeprefix(BOM).strip().decode(errors="replace")
            made.write(json.dumps({**terms, "item_id": text}).encode() + b"\n" if text else b"\n")
        yield made
