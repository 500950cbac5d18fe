"""All processes of the Procfile, with the index in a file of milvus-lite, which only the search worker opens."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.stack import Stack, wait_until, zipped

ITEMS = 20
SECONDS = 20  # on a busy machine; the follower looks twice a second


def test_a_shop_with_its_index_in_milvus(
    new_stack: Callable[..., Stack], sample_catalogue: Path, tmp_path: Path
) -> None:
    stack = new_stack(LOOKALIKE_INDEX_URL=str(tmp_path / "milvus.db"))
    with (sample_catalogue / "products.csv").open(encoding="utf-8", newline="") as file:
        first = next(csv.DictReader(file))
    photo = (sample_catalogue / first["image"]).read_bytes()

    def found(**asked: Any) -> list[str]:
        job = stack.search(photo, fresh=True, k=100, **asked)
        assert job["status"] == "succeeded", job
        return [hit["item_id"] for hit in job["result"]["hits"]]

    assert found() == []
    assert stack.imported(zipped(sample_catalogue, ITEMS), name="catalogue.zip")["status"] == "succeeded"
    wait_until(lambda: len(found()) == ITEMS, SECONDS, "all items are found")
    assert found()[0] == first["id"]
    same_colour = found(filter=f'{{"colour": "{first["colour"]}"}}')
    others = found(filter=f'{{"not": {{"colour": "{first["colour"]}"}}}}')
    assert first["id"] in same_colour
    assert sorted(same_colour + others) == sorted(found())

    more_like_it = stack.post("/v1/searches", json={"item_id": first["id"], "k": 100}).json()
    hits = stack.finished(more_like_it["id"])["result"]["hits"]
    assert sorted([first["id"], *(hit["item_id"] for hit in hits)]) == sorted(found())

    assert stack.delete(f"/v1/items/{first['id']}").status_code == 204
    wait_until(lambda: first["id"] not in found(), SECONDS, "the deleted item is gone")
    assert len(found()) == ITEMS - 1
