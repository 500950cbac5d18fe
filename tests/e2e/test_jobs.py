"""Waiting for a job, polling it, cancelling it."""

import time
from concurrent.futures import ThreadPoolExecutor

from shared.schemas import Job
from tests.e2e.steps import assert_problem, hits_of, ids_of, paused, search_json
from tests.stack import Stack, wait_until


def test_an_accepted_search_tells_where_and_when_to_ask_for_it(stack: Stack, photo: bytes, photographed: str) -> None:
    with paused(stack, "search"):
        answer = stack.post("/v1/searches", files={"image": photo}, headers={"Cache-Control": "no-cache"})
        job = answer.json()
        assert answer.status_code == 202
        assert answer.headers["Location"] == job["links"]["self"] == f"/v1/jobs/{job['id']}"
        assert int(answer.headers["Retry-After"]) >= 1
        assert (job["kind"], job["status"], job["started_at"], job["result"]) == ("search", "queued", None, None)

        again = stack.get(answer.headers["Location"])
        assert again.json() == job
        assert int(again.headers["Retry-After"]) >= 1
        assert again.headers["Cache-Control"] == "no-store"
    wait_until(lambda: stack.get(answer.headers["Location"]).json()["status"] == "succeeded", 20, "the search is done")
    done = stack.get(answer.headers["Location"])
    assert "Retry-After" not in done.headers
    assert ids_of(done.json())[0] == photographed


def test_without_prefer_an_accepted_job_is_answered_with_202_however_fast_it_is(stack: Stack, photo: bytes) -> None:
    fresh = {"Cache-Control": "no-cache"}
    empty = b"id,image\n"
    for headers in ({}, {"Prefer": "wait=0"}, {"Prefer": "respond-async"}):
        search = stack.post("/v1/searches", files={"image": photo}, headers={**fresh, **headers})
        an_import = stack.post("/v1/imports", files={"file": ("p.csv", empty)}, headers=headers)
        for answer in (search, an_import):
            assert answer.status_code == 202
            assert int(answer.headers["Retry-After"]) >= 1
            assert "Preference-Applied" not in answer.headers


def test_prefer_wait_answers_with_the_finished_job(stack: Stack, photo: bytes, photographed: str) -> None:
    headers = {"Prefer": "respond-async, wait=25", "Cache-Control": "no-cache"}
    answer = stack.post("/v1/searches", files={"image": photo}, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["Preference-Applied"] == "wait=25"
    assert "Retry-After" not in answer.headers
    assert ids_of(answer.json())[0] == photographed
    assert stack.get(answer.headers["Location"]).json() == answer.json()


def test_prefer_wait_answers_202_when_its_time_is_over(stack: Stack, photo: bytes) -> None:
    with paused(stack, "search"):
        start = time.monotonic()
        headers = {"Prefer": "wait=1", "Cache-Control": "no-cache"}
        answer = stack.post("/v1/searches", files={"image": photo}, headers=headers)
        assert time.monotonic() - start > 0.9
        assert (answer.status_code, answer.json()["status"]) == (202, "queued")
        assert int(answer.headers["Retry-After"]) >= 1
    assert len(hits_of(stack.finished(answer.json()["id"]))) == 10


def test_a_waiting_reader_is_answered_as_soon_as_the_job_has_ended(stack: Stack, photo: bytes) -> None:
    with ThreadPoolExecutor(1) as pool:
        with paused(stack, "search"):
            headers = {"Cache-Control": "no-cache"}
            job_id = stack.post("/v1/searches", files={"image": photo}, headers=headers).json()["id"]
            reading = pool.submit(stack.get, f"/v1/jobs/{job_id}?wait=29")
            assert stack.get(f"/v1/jobs/{job_id}?wait=1").json()["status"] == "queued"
            assert not reading.done()
        start = time.monotonic()
        assert reading.result().json()["status"] == "succeeded"
    assert time.monotonic() - start < 25


def test_a_cancelled_search_is_never_answered(stack: Stack, photo: bytes) -> None:
    with paused(stack, "search"):
        headers = {"Cache-Control": "no-cache"}
        job_id = stack.post("/v1/searches", files={"image": photo}, headers=headers).json()["id"]
        cancelled = stack.delete(f"/v1/jobs/{job_id}")
        assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
        assert stack.delete(f"/v1/jobs/{job_id}").json() == cancelled.json()
    stack.search(photo, fresh=True)  # behind it in the queue
    assert stack.get(f"/v1/jobs/{job_id}?wait=5").json() == cancelled.json()
    assert (cancelled.json()["attempts"], cancelled.json()["result"]) == (0, None)


def test_a_finished_job_cant_be_cancelled(stack: Stack, photo: bytes) -> None:
    job = stack.search(photo)
    assert_problem(stack.delete(f"/v1/jobs/{job['id']}"), 409, "job_already_finished")
    assert stack.get(f"/v1/jobs/{job['id']}").json() == job


def test_a_wait_that_is_no_number_of_seconds_is_refused(stack: Stack, photo: bytes) -> None:
    job_id = stack.search(photo)["id"]
    for wait in ("-1", "soon", "1.5"):
        assert_problem(stack.get(f"/v1/jobs/{job_id}?wait={wait}"), 422, "invalid_parameter")
    assert_problem(stack.get(f"/v1/jobs/{job_id}?wiat=5"), 422, "invalid_parameter")


def test_what_clients_read_is_what_the_wire_has_it_to_be(stack: Stack, photo: bytes) -> None:
    fresh, repeated = stack.search(photo, fresh=True, k=37), stack.search(photo, k=37)
    assert (fresh["result"]["answered_from"], repeated["result"]["answered_from"]) == ("engine", "result_cache")
    of_an_item = search_json(stack, item_id=ids_of(fresh)[0])
    broken = stack.search(photo[:3000])
    assert broken["error"]["code"] == "image_broken"
    for job in (fresh, repeated, of_an_item, broken):
        assert Job.model_validate(job).model_dump(mode="json") == job
