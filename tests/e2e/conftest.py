"""Fixtures of the end-to-end tests."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.pictures import PictureServer
from tests.e2e.steps import SCRATCH_CHUNK_ROWS, SCRATCH_IMPORT_MAX_BYTES, all_items
from tests.stack import Stack, running_stack


@pytest.fixture(scope="session")
def products(sample_catalogue: Path) -> list[dict[str, Any]]:
    """The rows of the sample catalogue, prices as numbers."""
    with (sample_catalogue / "products.csv").open(newline="", encoding="utf-8") as file:
        return [{**row, "price": float(row["price"])} for row in csv.DictReader(file)]


@pytest.fixture(scope="session")
def photo(sample_catalogue: Path) -> bytes:
    """A customer's photo of an item of the sample catalogue."""
    return (sample_catalogue / "photo.jpg").read_bytes()


@pytest.fixture(scope="session")
def photographed(sample_catalogue: Path) -> str:
    """Id of the item in that photo."""
    return (sample_catalogue / "photo.txt").read_text().strip()


@pytest.fixture(scope="session")
def import_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder below which the scratch stack imports files."""
    return tmp_path_factory.mktemp("import-root")


@pytest.fixture(scope="session")
def running_scratch_stack(tmp_path_factory: pytest.TempPathFactory, import_root: Path) -> Iterator[Stack]:
    environment = {
        "LOOKALIKE_IMPORT_ROOT": str(import_root),
        "LOOKALIKE_IMPORT_CHUNK_ROWS": str(SCRATCH_CHUNK_ROWS),
        "LOOKALIKE_IMPORT_MAX_BYTES": str(SCRATCH_IMPORT_MAX_BYTES),
        "LOOKALIKE_FETCH_TIMEOUT_SECONDS": "60",  # for pictures that tests hold back
    }
    with running_stack(tmp_path_factory.mktemp("scratch-stack"), environment) as stack:
        yield stack


@pytest.fixture
def scratch_stack(running_scratch_stack: Stack) -> Iterator[Stack]:
    """A stack that tests may write to: empty at the start of each."""
    yield running_scratch_stack
    for item in all_items(running_scratch_stack):
        running_scratch_stack.delete(f"/v1/items/{item['id']}")


@pytest.fixture
def shop() -> Iterator[PictureServer]:
    """A web server for pictures."""
    server = PictureServer()
    yield server
    server.close()
