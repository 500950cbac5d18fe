"""What is accepted is finished, whatever dies meanwhile."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.e2e.pictures import PictureServer
from tests.stack import Stack, wait_until, zipped

NewStack = Callable[..., Stack]

ROWS = 60


@pytest.fixture
def quick(new_stack: NewStack) -> Stack:
    """A stack of its own that notices a dead worker fast and imports in small chunks."""
    return new_stack(LOOKALIKE_JOB_LEASE_SECONDS="3", LOOKALIKE_IMPORT_CHUNK_ROWS="8")


def test_an_import_survives_the_death_of_its_worker_and_counts_every_row_once(
    quick: Stack, sample_catalogue: Path
) -> None:
    job_id = quick.post("/v1/imports", files={"file": zipped(sample_catalogue, ROWS)}).json()["id"]

    def has_begun() -> bool:
        progress = quick.get(f"/v1/jobs/{job_id}").json()["progress"]
        return progress is not None and 0 < progress["done"] < progress["total"]

    wait_until(has_begun, 60, "the first chunk")
    quick.group.kill("bulk", signal.SIGKILL)
    assert quick.get(f"/v1/jobs/{job_id}").json()["status"] == "running"
    quick.group.restart("bulk")
    job = quick.finished(job_id, seconds=120)

    assert job["status"] == "succeeded", job
    items = {item["id"] for item in quick.get("/v1/items?limit=500").json()["items"]}
    assert job["result"]["rows"] == job["result"]["imported"] == len(items) == ROWS


def test_a_search_survives_the_death_of_its_worker(quick: Stack, sample_catalogue: Path) -> None:
    photo = (sample_catalogue / "photo.jpg").read_bytes()
    quick.group.kill("search", signal.SIGSTOP)
    answer = quick.post("/v1/searches", files={"image": photo})
    assert answer.status_code == 202
    quick.group.kill("search", signal.SIGKILL)
    quick.group.restart("search")

    job = quick.finished(answer.json()["id"], seconds=90)

    assert job["status"] == "succeeded"
    assert job["result"]["reason"] == "catalogue_empty"


def test_everything_comes_back_by_itself_when_redis_was_killed(quick: Stack, sample_catalogue: Path) -> None:
    photo = (sample_catalogue / "photo.jpg").read_bytes()
    assert quick.search(photo)["status"] == "succeeded"

    quick.group.kill("redis", signal.SIGKILL)
    refused = quick.post("/v1/searches", files={"image": photo})
    ready = quick.get("/readyz")

    assert refused.status_code == 503
    assert refused.headers["Retry-After"].isdigit()
    assert refused.json()["code"] == "redis_unavailable"
    assert ready.status_code == 503
    assert "Redis" in ready.json()["checks"]["redis"]
    assert quick.get("/healthz").status_code == 200
    assert "lookalike_redis_up 0.0" in quick.get("/metrics").text

    quick.group.restart("redis")

    def answers() -> bool:
        try:
            answer = quick.post("/v1/searches", files={"image": photo}, headers={"Prefer": "wait=2"})
        except requests.RequestException:
            return False
        return answer.status_code == 200 and answer.json()["status"] == "succeeded"

    wait_until(answers, 30, "a search is answered again")
    assert quick.imported(b"id,title,image\na,A,nothing.jpg\n")["status"] == "succeeded"
    assert quick.get("/readyz").json()["search_workers"] == 1


def test_a_stopped_worker_finishes_what_it_has_begun(quick: Stack, sample_catalogue: Path) -> None:
    job_id = quick.post("/v1/imports", files={"file": zipped(sample_catalogue, ROWS)}).json()["id"]
    wait_until(lambda: quick.get(f"/v1/jobs/{job_id}").json()["progress"] is not None, 60, "the plan")
    quick.group.restart("bulk")
    assert quick.finished(job_id, seconds=120)["status"] == "succeeded"


def test_a_batch_search_survives_the_death_of_its_worker_and_answers_every_query_once(
    quick: Stack, sample_catalogue: Path, shop: PictureServer, tmp_path: Path
) -> None:
    assert quick.imported(zipped(sample_catalogue, ROWS), "c.zip")["status"] == "succeeded"
    ids = [item["id"] for item in quick.get(f"/v1/items?limit={ROWS}").json()["items"]]
    photo = (sample_catalogue / "photo.jpg").read_bytes()
    lines = [{"item_id": item_id} for item_id in (ids * 10)[:400]]
    lines += [{"image_url": shop.add(f"/slow/{number}.jpg", photo)} for number in range(20)]
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    headers = {"Content-Type": "application/x-ndjson"}
    job_id = quick.post("/v1/searches/batch", data=body, headers=headers).json()["id"]

    def done() -> int:
        return (quick.get(f"/v1/jobs/{job_id}").json()["progress"] or {}).get("done", 0)

    wait_until(lambda: done() == 400, 60, "the first two parts")
    parts = sorted((tmp_path / "stack0" / "store" / "batches" / job_id).glob("0*.ndjson"))
    written = {part: part.stat().st_mtime_ns for part in parts}
    assert len(written) == 2
    quick.group.kill("bulk", signal.SIGKILL)
    quick.group.restart("bulk")
    shop.release.set()
    job = quick.finished(job_id, seconds=120)

    assert (job["status"], job["attempts"]) == ("succeeded", 1), job
    assert (job["result"]["queries"], job["result"]["failed"]) == (420, 0)
    answers = [json.loads(line) for line in quick.get(job["result"]["results"]).content.splitlines()]
    assert [answer["line"] for answer in answers] == list(range(1, 421))
    assert {part: part.stat().st_mtime_ns for part in parts} == written, "what was answered is not answered again"


def test_a_batch_search_whose_worker_dies_each_time_fails_as_lost(quick: Stack, shop: PictureServer) -> None:
    url = shop.add("/slow/a.png", b"never")
    headers = {"Content-Type": "application/x-ndjson"}
    body = json.dumps({"image_url": url}).encode()
    job_id = quick.post("/v1/searches/batch", data=body, headers=headers).json()["id"]
    for attempt in (1, 2, 3):
        wait_until(lambda: quick.get(f"/v1/jobs/{job_id}").json()["attempts"] == attempt, 60, "it is tried")  # noqa: B023
        quick.group.kill("bulk", signal.SIGKILL)
        if attempt < 3:
            quick.group.restart("bulk")
    job = quick.finished(job_id, seconds=60)
    assert job["error"]["code"] == "worker_lost"
    quick.group.restart("bulk")
