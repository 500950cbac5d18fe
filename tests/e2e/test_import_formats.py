"""The same catalogue as CSV, NDJSON, Parquet and ZIP, with its pictures from everywhere that they may come from."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.pictures import PictureServer, picture
from tests.e2e.steps import all_items, ids_of
from tests.e2e.tables import FORMATS, Row, attributes_of, csv_of, pictures_of, zip_of
from tests.stack import Stack

ROWS: list[Row] = [
    {"id": "bag", "title": "Bag, red", "image": ["bag.png"], "colour": "red", "price": 19.5, "is_new": True},
    {"id": "hat", "title": "Hat — “chic”", "image": ["hat.png", "hat back.png"], "colour": "né", "price": 7.0},
    {"id": "42", "title": "", "image": ["coat.png"], "is_new": False},
]


def assert_imported(stack: Stack, job: dict[str, Any], rows: list[Row]) -> None:
    """Check a job's account and the catalogue against the rows, and that each is found by each of its pictures."""
    assert job["status"] == "succeeded", job
    counts = {name: job["result"][name] for name in ("rows", "imported", "failed", "deleted")}
    assert counts == {"rows": len(rows), "imported": len(rows), "failed": 0, "deleted": 0}
    items = {item["id"]: item for item in all_items(stack)}
    assert set(items) == {row["id"] for row in rows}
    for row in rows:
        item = items[row["id"]]
        assert (item["title"], item["attributes"]) == (row["title"], attributes_of(row))
        assert len(item["images"]) == len(row["image"])
        for name in row["image"]:
            assert ids_of(stack.search(picture(name)))[0] == row["id"]


@pytest.mark.parametrize("format_", FORMATS)
def test_a_zip_brings_its_table_and_its_pictures(scratch_stack: Stack, format_: str) -> None:
    pictures = {f"shop/{name}": data for name, data in pictures_of(ROWS).items()}
    archive = zip_of({f"shop/products.{format_}": FORMATS[format_](ROWS), **pictures})
    assert_imported(scratch_stack, scratch_stack.imported(archive, "catalogue.zip"), ROWS)


@pytest.mark.parametrize("format_", FORMATS)
def test_an_uploaded_table_names_its_pictures_by_url(scratch_stack: Stack, shop: PictureServer, format_: str) -> None:
    for name, data in pictures_of(ROWS).items():
        shop.add(f"/{name}".replace(" ", "%20"), data)
    base = shop.add("/", b"")
    rows = [{**row, "image": [base + name.replace(" ", "%20") for name in row["image"]]} for row in ROWS]
    job = scratch_stack.imported(FORMATS[format_](rows), f"products.{format_}")
    assert_imported(scratch_stack, job, ROWS)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_file_below_the_import_root_finds_its_pictures_beside_it(
    scratch_stack: Stack, import_root: Path, format_: str
) -> None:
    folder = import_root / f"shop-{format_}"
    folder.mkdir()
    (folder / "products").write_bytes(FORMATS[format_](ROWS))
    for name, data in pictures_of(ROWS).items():
        (folder / name).write_bytes(data)
    accepted = scratch_stack.post("/v1/imports", json={"path": f"shop-{format_}/products", "format": format_})
    assert accepted.status_code == 202
    assert accepted.headers["Location"] == f"/v1/jobs/{accepted.json()['id']}"
    assert accepted.json()["links"]["errors"] == f"/v1/jobs/{accepted.json()['id']}/errors"
    assert_imported(scratch_stack, scratch_stack.finished(accepted.json()["id"]), ROWS)


def test_columns_may_have_other_names_and_another_delimiter(scratch_stack: Stack) -> None:
    table = csv_of(ROWS, ";").replace(b"id;title;image", b"sku;name;pic", 1)
    archive = zip_of({"products.csv": table, **pictures_of(ROWS)})
    columns = json.dumps({"id": "sku", "title": "name", "image": "pic"})
    assert_imported(scratch_stack, scratch_stack.imported(archive, "c.zip", columns=columns), ROWS)
