"""The whole stack on PostgreSQL, as docker-compose.yml runs it."""

from collections.abc import Callable
from pathlib import Path

import psycopg

from tests.stack import Stack, zipped


def test_the_stack_imports_searches_filters_and_deletes_on_postgresql(
    new_stack: Callable[..., Stack], postgres_url: str, sample_catalogue: Path
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE whole_stack")
    stack = new_stack(DATABASE_URL=postgres_url.rpartition("/")[0] + "/whole_stack")

    job = stack.imported(zipped(sample_catalogue, 30), "catalogue.zip")
    assert job["result"]["imported"] == 30, job
    photo = (sample_catalogue / "photo.jpg").read_bytes()
    result = stack.search(photo, k=30)["result"]
    assert len(result["hits"]) == 30
    best = result["hits"][0]
    colour = best["attributes"]["colour"]
    filtered = stack.search(photo, k=30, filter=f'{{"colour": "{colour}", "price": {{"gt": 0}}}}')["result"]
    expected = [hit["item_id"] for hit in result["hits"] if hit["attributes"]["colour"] == colour]
    assert [hit["item_id"] for hit in filtered["hits"]] == expected

    assert stack.delete(f"/v1/items/{best['item_id']}").status_code == 204
    after = stack.search(photo, k=30)["result"]
    assert [hit["item_id"] for hit in after["hits"]] == [hit["item_id"] for hit in result["hits"][1:]]
    assert after["catalogue_version"] > result["catalogue_version"]
