"""Imports as jobs: counted, safe to run twice, in both modes, cancelled at once."""

from typing import Any

from tests.e2e.pictures import PictureServer, picture
from tests.e2e.steps import SCRATCH_CHUNK_ROWS, all_items, ids_of, paused, put_item
from tests.e2e.tables import Row, attributes_of, csv_of, pictures_of, zip_of
from tests.stack import Stack, wait_until

ROWS: list[Row] = [
    {"id": "bag", "title": "Bag", "image": ["bag.png"], "colour": "red"},
    {"id": "hat", "title": "Hat", "image": ["hat.png", "hat back.png"], "colour": "blue"},
    {"id": "coat", "title": "Coat", "image": ["coat.png"]},
]


def test_the_sample_catalogue_was_imported_whole(stack: Stack, products: list[Row]) -> None:
    items = {item["id"]: item for item in all_items(stack)}
    assert len(items) == len(products) >= 300
    for product in products:
        item = items[product["id"]]
        assert (item["title"], item["attributes"]) == (product["title"], attributes_of(product))


def test_an_import_counts_its_rows_and_tells_its_rate(scratch_stack: Stack) -> None:
    rows = [{"id": f"r{n}", "image": [f"r{n}.png"]} for n in range(SCRATCH_CHUNK_ROWS * 2 + 1)]
    job = scratch_stack.imported(zip_of({"p.csv": csv_of(rows), **pictures_of(rows)}), "c.zip")
    progress = job["progress"]
    assert (progress["done"], progress["total"], progress["failed"]) == (len(rows), len(rows), 0)
    assert progress["rate_per_second"] > 0
    assert progress["eta_seconds"] == 0
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]
    assert job["result"]["embedded"] <= len(rows)


def test_a_second_import_of_the_same_file_embeds_and_changes_nothing(scratch_stack: Stack) -> None:
    rows = [{**row, "image": [f"again {name}" for name in row["image"]]} for row in ROWS]
    archive = zip_of({"products.csv": csv_of(rows), **pictures_of(rows)})
    first = scratch_stack.imported(archive, "c.zip")
    assert first["result"]["embedded"] == 4
    searched = scratch_stack.search(picture("again bag.png"))
    before = all_items(scratch_stack)

    second = scratch_stack.imported(archive, "c.zip")
    assert (second["result"]["imported"], second["result"]["embedded"]) == (3, 0)
    assert all_items(scratch_stack) == before
    repeated = scratch_stack.search(picture("again bag.png"))
    assert repeated["result"]["answered_from"] == "result_cache"
    assert repeated["result"]["catalogue_version"] == searched["result"]["catalogue_version"]


def test_the_same_picture_of_several_items_is_embedded_once(scratch_stack: Stack) -> None:
    rows = [{"id": item_id, "image": ["shared by all.png"]} for item_id in ("a", "b", "c")]
    job = scratch_stack.imported(zip_of({"p.csv": csv_of(rows), **pictures_of(rows)}), "c.zip")
    assert (job["result"]["imported"], job["result"]["embedded"]) == (3, 1)
    assert sorted(ids_of(scratch_stack.search(picture("shared by all.png")))) == ["a", "b", "c"]


def import_second_file(stack: Stack, **options: str) -> dict[str, Any]:
    """Import three items, then a file that changes one, adds one, breaks one and leaves one out."""
    first = [{"id": item_id, "title": "Old", "image": [f"{item_id}.png"]} for item_id in ("kept", "changed", "broken")]
    stack.imported(zip_of({"p.csv": csv_of(first), **pictures_of(first)}), "c.zip")
    put_item(stack, "single", picture("single"), title="Old")
    second = [
        {"id": item_id, "title": "New", "image": [f"{item_id}.png"]} for item_id in ("changed", "added", "broken")
    ]
    members = {"p.csv": csv_of(second), **pictures_of(second), "broken.png": b"no picture any more"}
    job = stack.imported(zip_of(members), "c.zip", **options)
    assert job["status"] == "succeeded"
    assert (job["result"]["rows"], job["result"]["imported"], job["result"]["failed"]) == (3, 2, 1)
    return job


def test_upsert_leaves_the_items_that_the_file_does_not_name(scratch_stack: Stack) -> None:
    assert import_second_file(scratch_stack)["result"]["deleted"] == 0
    titles = {item["id"]: item["title"] for item in all_items(scratch_stack)}
    assert titles == {"kept": "Old", "single": "Old", "changed": "New", "added": "New", "broken": "Old"}


def test_replace_deletes_the_items_that_the_file_does_not_name_but_not_those_whose_row_is_bad(
    scratch_stack: Stack,
) -> None:
    assert import_second_file(scratch_stack, mode="replace")["result"]["deleted"] == 2
    titles = {item["id"]: item["title"] for item in all_items(scratch_stack)}
    assert titles == {"changed": "New", "added": "New", "broken": "Old"}
    assert set(ids_of(scratch_stack.search(picture("kept.png")))) == set(titles)


def test_a_waiting_import_that_is_cancelled_never_runs(scratch_stack: Stack) -> None:
    archive = zip_of({"p.csv": csv_of(ROWS), **pictures_of(ROWS)})
    with paused(scratch_stack, "bulk"):
        accepted = scratch_stack.post("/v1/imports", files={"file": ("c.zip", archive)})
        assert accepted.json()["status"] == "queued"
        assert scratch_stack.delete(f"/v1/jobs/{accepted.json()['id']}").json()["status"] == "cancelled"
    after = scratch_stack.imported(csv_of([{"id": "x", "image": ["nothing.png"]}]))  # behind it in the queue
    assert after["result"]["failed"] == 1
    assert scratch_stack.get(f"/v1/jobs/{accepted.json()['id']}").json()["status"] == "cancelled"
    assert all_items(scratch_stack) == []


def test_a_running_import_that_is_cancelled_stops_after_the_rows_at_hand(
    scratch_stack: Stack, shop: PictureServer
) -> None:
    quick = [{"id": f"q{n}", "image": [shop.add(f"/q{n}.png", picture(f"q{n}"))]} for n in range(SCRATCH_CHUNK_ROWS)]
    slow = [{"id": f"s{n}", "image": [shop.add(f"/slow/{n}.png", picture(f"s{n}"))]} for n in range(40)]
    table = csv_of([*quick, *slow])
    job_id = scratch_stack.post("/v1/imports", files={"file": ("p.csv", table)}).json()["id"]

    def job() -> dict[str, Any]:
        found: dict[str, Any] = scratch_stack.get(f"/v1/jobs/{job_id}").json()
        return found

    wait_until(lambda: (job()["progress"] or {}).get("done") == len(quick), 60, "the first rows are imported")
    assert (job()["status"], job()["progress"]["total"]) == ("running", 44)
    assert job()["progress"]["eta_seconds"] > 0
    assert ids_of(scratch_stack.search(picture("q1")))[0] == "q1"
    assert scratch_stack.delete(f"/v1/jobs/{job_id}").json()["status"] == "cancelled"
    shop.release.set()
    scratch_stack.imported(csv_of([{"id": "x", "image": ["nothing.png"]}]))  # behind it in the queue
    assert job()["status"] == "cancelled"
    assert len(quick) <= len(all_items(scratch_stack)) <= len(quick) + SCRATCH_CHUNK_ROWS


def test_prefer_wait_answers_with_the_finished_import(scratch_stack: Stack) -> None:
    table = csv_of([{"id": "x", "image": ["nothing.png"]}])
    answer = scratch_stack.post("/v1/imports", files={"file": ("c.csv", table)}, headers={"Prefer": "wait=29"})
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (200, "wait=29")
    assert (answer.json()["status"], answer.json()["result"]["failed"]) == ("succeeded", 1)


def test_replace_deletes_nothing_where_a_row_may_name_any_item(scratch_stack: Stack) -> None:
    archive = {"p.csv": csv_of(ROWS), **pictures_of(ROWS)}
    assert scratch_stack.imported(zip_of(archive), "c.zip")["result"]["imported"] == 3
    latin_1 = "id,title,image,colour\nbag,Bag,bag.png,red\ncaf\u00e9,Coat,coat.png,red\n".encode("latin-1")
    job = scratch_stack.imported(zip_of({**archive, "p.csv": latin_1}), "c.zip", mode="replace")
    assert (job["result"]["imported"], job["result"]["failed"], job["result"]["deleted"]) == (1, 1, 0)
    assert "1 rows have no id" in job["result"]["deletion_skipped"]

    empty = scratch_stack.imported(b"id,title,image\nbag,Bag,not there.png\n", mode="replace")
    assert empty["result"]["deletion_skipped"].startswith("No row could be imported")
    assert len(all_items(scratch_stack)) == 3


def test_a_cancelled_replace_deletes_nothing(scratch_stack: Stack) -> None:
    archive = {"p.csv": csv_of(ROWS), **pictures_of(ROWS)}
    assert scratch_stack.imported(zip_of(archive), "c.zip")["result"]["imported"] == 3
    with paused(scratch_stack, "bulk"):
        answer = scratch_stack.post(
            "/v1/imports",
            files={"file": ("c.zip", zip_of({**archive, "p.csv": csv_of(ROWS[:1])}))},
            data={"mode": "replace"},
        )
        job_id = answer.json()["id"]
        assert scratch_stack.delete(f"/v1/jobs/{job_id}").json()["status"] == "cancelled"
    put_item(scratch_stack, "other", picture("other"))  # by its end, bulk has come to the cancelled one
    last = scratch_stack.imported(b"id,title,image\nx,X,not there.png\n")
    assert last["status"] == "succeeded"
    assert {item["id"] for item in all_items(scratch_stack)} == {"bag", "hat", "coat", "other"}
