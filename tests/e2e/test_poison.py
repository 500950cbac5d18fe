"""Photos that kill their worker: tried a stated number of times, then failed, and nobody else pays for them."""

import csv
import io
import json
import os
import signal
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from demo.process import ProcessFailed
from tests.e2e.pictures import POISON, PictureServer, picture
from tests.stack import Stack, folder_with_app

COLOURS = ("red", "green", "blue", "grey", "black", "white")
LETHAL = 3  # the place of the lethal photo among them
TRIES = 3
ROWS = 12


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose decoder kills its process at some photos, and that notices a dead worker fast."""
    folder = tmp_path_factory.mktemp("poisoned")
    root, environment = folder_with_app(folder / "root", "tests.poisoned_worker")
    ours = {
        "LOOKALIKE_JOB_LEASE_SECONDS": "2",
        "LOOKALIKE_IMPORT_CHUNK_ROWS": "6",
        "LOOKALIKE_KEEP_IMAGE_METADATA": "true",  # else the mark of a lethal photo is cut off before it is decoded
    }
    stack = Stack.start(folder / "stack", {**environment, **ours}, root)
    yield stack
    stack.group.stop()


def restart_whatever_ends(stack: Stack, done: Event) -> int:
    """Do what a supervisor does, until all is done; returns how often it had to."""
    restarts = 0
    while not done.wait(0.1):
        try:
            stack.group.require_alive()
        except ProcessFailed:
            stack.group.restart("search")
            restarts += 1
    return restarts


def test_a_search_whose_photo_kills_its_worker_fails_after_its_tries_and_takes_no_other_along(poisoned: Stack) -> None:
    stack, done = poisoned, Event()
    photos = [picture(name) for name in COLOURS]
    photos.insert(LETHAL, picture("lethal") + POISON)
    os.kill(stack.group.pid("search"), signal.SIGSTOP)  # so that it takes all of them at once
    job_ids = [stack.post("/v1/searches", files={"image": photo}).json()["id"] for photo in photos]
    with ThreadPoolExecutor(1) as supervisor:
        restarts = supervisor.submit(restart_whatever_ends, stack, done)
        try:
            os.kill(stack.group.pid("search"), signal.SIGCONT)
            ends = [stack.finished(job_id, seconds=100) for job_id in job_ids]
        finally:
            done.set()
        assert restarts.result() == TRIES

    lethal = ends.pop(LETHAL)
    assert (lethal["status"], lethal["attempts"]) == ("failed", TRIES), lethal
    assert lethal["error"]["code"] == "worker_lost"
    assert f"tried {TRIES} times" in lethal["error"]["detail"]
    assert [end["status"] for end in ends] == ["succeeded"] * len(COLOURS)
    assert max(end["attempts"] for end in ends) <= 2, "one try with the lethal one, and one alone"
    stack.group.wait_until_ready()
    assert stack.search(picture("another"))["status"] == "succeeded", "the queue goes on"


def catalogue(lethal_row: int) -> bytes:
    """Return a ZIP with a row whose photo kills the worker."""
    table, packed = io.StringIO(), io.BytesIO()
    writer = csv.writer(table)
    writer.writerows([["id", "image"], *([f"i{row}", f"{row}.png"] for row in range(ROWS))])
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("products.csv", table.getvalue())
        for row in range(ROWS):
            archive.writestr(f"{row}.png", picture(f"photo {row}") + (POISON if row == lethal_row else b""))
    return packed.getvalue()


def test_a_row_whose_photo_kills_the_worker_is_left_out_and_all_others_are_imported(poisoned: Stack) -> None:
    job = poisoned.imported(catalogue(lethal_row=3), "catalogue.zip")

    assert job["status"] == "succeeded", job
    assert (job["result"]["rows"], job["result"]["imported"], job["result"]["failed"]) == (ROWS, ROWS - 1, 1)
    errors = poisoned.get(f"/v1/jobs/{job['id']}/errors").json()["errors"]
    assert [(error["line"], error["item_id"], error["code"]) for error in errors] == [(5, "i3", "worker_lost")]
    assert f"{TRIES} times in all" in errors[0]["detail"]
    items = {item["id"] for item in poisoned.get("/v1/items?limit=100").json()["items"]}
    assert items == {f"i{row}" for row in range(ROWS)} - {"i3"}
    assert poisoned.group.log("bulk").read_text().count("SIGABRT") >= TRIES
    assert poisoned.imported(b"id,image\na,nothing.png\n")["result"]["failed"] == 1, "the queue goes on"


def test_a_query_whose_photo_kills_the_worker_is_refused_and_all_others_are_answered(
    poisoned: Stack, shop: PictureServer
) -> None:
    urls = [shop.add(f"/{name}.png", picture(name) + (POISON if name == "blue" else b"")) for name in COLOURS]
    lines = b"".join(json.dumps({"image_url": url, "k": 2}).encode() + b"\n" for url in urls)

    answer = poisoned.post("/v1/searches/batch", data=lines, headers={"Content-Type": "application/x-ndjson"})
    job = poisoned.finished(answer.json()["id"], seconds=100)

    assert job["status"] == "succeeded", job
    assert (job["result"]["queries"], job["result"]["failed"]) == (len(COLOURS), 1)
    assert job["attempts"] == 1, "the deaths are held against the query"
    answers = [json.loads(line) for line in poisoned.get(job["result"]["results"]).content.splitlines()]
    assert [answer["image_url"] for answer in answers] == urls
    lost = answers.pop(COLOURS.index("blue"))
    assert lost["error"]["code"] == "worker_lost"
    assert f"{TRIES} times in all" in lost["error"]["detail"]
    assert all("error" not in answer for answer in answers)
