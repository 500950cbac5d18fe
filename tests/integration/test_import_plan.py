"""Chunks of an import: bounded in rows and in photos."""

import io
from pathlib import Path

import pytest

from shared.catalogue import Catalogue
from shared.store import Store
from worker.imports.catalogue import open_catalogue
from worker.imports.plan import Chunks, plan_import, read_chunk


@pytest.mark.parametrize(
    ("photos", "sizes"),
    [
        ([1] * 9, [4, 4, 1]),
        ([3, 3, 1, 1, 1, 1, 16, 1, 2], [2, 4, 1, 2]),
        ([16, 16], [1, 1]),
    ],
)
def test_a_chunk_ends_when_it_has_its_rows_or_as_many_photos(
    catalogue: Catalogue, tmp_path: Path, photos: list[int], sizes: list[int]
) -> None:
    store = Store(str(tmp_path))
    lines = [f"item{n},T,{'|'.join(f'{n}-{photo}.jpg' for photo in range(count))}" for n, count in enumerate(photos)]
    file = io.BytesIO("\n".join(["id,title,images", *lines]).encode())
    plan_import(open_catalogue(file, "c.csv"), "job", 4, catalogue, store)

    chunks = Chunks(catalogue).all("job")
    assert [chunk.rows for chunk in chunks] == sizes
    rows = [row for chunk in chunks for row in read_chunk(store, "job", chunk.number)]
    assert [(row.item_id, len(row.images)) for row in rows] == [(f"item{n}", count) for n, count in enumerate(photos)]
