"""Batch searches over HTTP: what they answer, and what is refused."""

import http.client
import json
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from standardwebhooks import Webhook

from shared.schemas import BatchAnswer
from tests.e2e.pictures import PictureServer, picture
from tests.e2e.steps import SCRATCH_IMPORT_MAX_BYTES, assert_problem, hits_of, paused, put_item, search_json
from tests.e2e.tables import Row
from tests.receiver import Receiver
from tests.stack import WEBHOOK_SECRET, Stack, wait_until

NDJSON = {"Content-Type": "application/x-ndjson"}
JSON = {"Content-Type": "application/json"}


def batch(stack: Stack, lines: list[dict[str, Any]] | bytes, **options: Any) -> requests.Response:
    body = lines if isinstance(lines, bytes) else b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return stack.post("/v1/searches/batch", data=body, headers=NDJSON, **options)


def finished(stack: Stack, answer: requests.Response) -> dict[str, Any]:
    assert answer.status_code == 202, answer.text
    job = stack.finished(answer.json()["id"])
    assert (job["kind"], job["status"]) == ("batch_search", "succeeded"), job
    return job


def answers_of(stack: Stack, job: dict[str, Any]) -> list[dict[str, Any]]:
    response = stack.get(job["result"]["results"])
    assert response.status_code == 200
    assert response.headers["Content-Type"].partition(";")[0] == "application/x-ndjson"
    answers = [json.loads(line) for line in response.content.splitlines()]
    for answer in answers:
        BatchAnswer.model_validate(answer)
    return answers


def test_items_are_answered_in_their_order_as_by_searches_of_their_own(stack: Stack, products: list[Row]) -> None:
    ids = [product["id"] for product in products[40:0:-2]]
    terms = {"k": 4, "filter": {"price": {"lt": 60}}, "min_score": 0.2}
    job = finished(stack, stack.post("/v1/searches/batch", json={"item_ids": ids, **terms}))
    assert (job["result"]["queries"], job["result"]["failed"], job["attempts"]) == (20, 0, 1)
    assert job["result"]["seconds"] > 0
    assert job["links"]["results"] == job["result"]["results"]
    progress = job["progress"]
    assert (progress["step"], progress["done"], progress["total"], progress["failed"]) == ("search", 20, 20, 0)
    answers = answers_of(stack, job)
    assert [(answer["line"], answer["item_id"]) for answer in answers] == list(enumerate(ids, 1))
    for answer in answers:
        alone = search_json(stack, fresh=True, item_id=answer["item_id"], **terms)
        assert answer["hits"] == hits_of(alone)
        assert answer["reason"] == alone["result"]["reason"]
        assert job["result"]["releases"] == [alone["result"]["release"]]


def test_each_item_of_the_catalogue_is_answered_once_in_the_order_of_their_ids(
    stack: Stack, products: list[Row]
) -> None:
    job = finished(stack, stack.post("/v1/searches/batch", json={"all_items": True, "k": 2}))
    answers = answers_of(stack, job)
    assert [answer["item_id"] for answer in answers] == sorted(product["id"] for product in products)
    assert [answer["line"] for answer in answers] == list(range(1, len(products) + 1))
    assert all(len(answer["hits"]) == 2 for answer in answers)
    assert all(answer["item_id"] not in {hit["item_id"] for hit in answer["hits"]} for answer in answers)


def test_lines_search_by_item_and_by_url_and_a_bad_one_stops_no_other(
    stack: Stack, shop: PictureServer, photo: bytes, photographed: str
) -> None:
    url = shop.add("/photo.jpg", photo)
    crop = {"x": 0.1, "y": 0.1, "width": 0.8, "height": 0.8}
    lines: list[dict[str, Any]] = [
        {"image_url": url, "id": "by url", "k": 3},
        {"image_url": shop.add("/broken.jpg", photo[:3000]), "id": "broken"},
        {"item_id": "sample-0001", "crop": crop, "k": 3},
        {"image_url": url + "-gone"},
        {"image_url": "http://169.254.169.254/"},
        {"item_id": "nobody"},
        {"item_id": "sample-0002", "filter": {"color": "red"}},
        {"item_id": "sample-0002", "group_by": "category", "k": 5},
        {"image_url": url, "crop": crop, "group_by": "colour", "per_group": 2},
    ]
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines) + b"no json\n"
    job = finished(stack, batch(stack, body))
    answers = answers_of(stack, job)
    assert [answer["line"] for answer in answers] == list(range(1, 11))
    assert [answer.get("error", {}).get("code") for answer in answers] == [
        None,
        "image_broken",
        None,
        "image_fetch_failed",
        "url_refused",
        "item_not_found",
        "filter_field_unknown",
        None,
        None,
        "invalid_parameter",
    ]
    assert (job["result"]["queries"], job["result"]["failed"], job["progress"]["failed"]) == (10, 6, 6)
    assert (answers[0]["id"], answers[0]["hits"][0]["item_id"]) == ("by url", photographed)
    assert all(error["title"] and error["detail"] for error in (a["error"] for a in answers if "error" in a))
    assert answers[2]["hits"] == hits_of(search_json(stack, fresh=True, item_id="sample-0001", crop=crop, k=3))
    categories = [hit["attributes"]["category"] for hit in answers[7]["hits"]]
    assert len(set(categories)) == len(categories) == 5
    grouped = search_json(stack, fresh=True, image_url=url, crop=crop, group_by="colour", per_group=2)
    assert [hit["item_id"] for hit in answers[8]["hits"]] == [hit["item_id"] for hit in hits_of(grouped)]


@pytest.mark.parametrize(
    ("body", "code", "word"),
    [
        (b"", "batch_empty", "no query"),
        (b"\n \r\n", "batch_empty", "no query"),
        (b"id,image\n1,a.jpg\n", "batch_unreadable", "Line 1: The line is not JSON"),
        (b'\n{"k": 3}\n{"k": 4}', "batch_unreadable", "Line 2: name exactly one"),
    ],
)
def test_a_body_without_any_query_is_refused_before_there_is_a_job(
    stack: Stack, body: bytes, code: str, word: str
) -> None:
    problem = assert_problem(batch(stack, body), 422, code)
    assert word in problem["detail"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_parameter"),
        ({"item_ids": []}, "invalid_parameter"),
        ({"item_ids": ["a"], "all_items": True}, "invalid_parameter"),
        ({"all_items": True, "k": 101}, "invalid_parameter"),
        ({"all_items": True, "per_group": 2}, "invalid_parameter"),
        ({"all_items": True, "filter": {"color": "red"}}, "filter_field_unknown"),
        ({"all_items": True, "group_by": "color"}, "filter_field_unknown"),
        ({"all_items": True, "callback_url": "ftp://h/"}, "url_refused"),
    ],
)
def test_terms_that_make_no_sense_are_refused_at_once(stack: Stack, body: dict[str, Any], code: str) -> None:
    assert_problem(stack.post("/v1/searches/batch", json=body), 422, code)


def test_a_body_of_another_media_type_is_told_which_ones_there_are(stack: Stack) -> None:
    answer = stack.post("/v1/searches/batch", data=b'{"item_id": "a"}', headers={"Content-Type": "text/plain"})
    assert "application/x-ndjson" in assert_problem(answer, 422, "invalid_parameter")["detail"]


def test_more_queries_than_an_import_may_have_bytes_are_refused_however_they_are_sent(scratch_stack: Stack) -> None:
    line = b'{"item_id": "a"}\n'
    body = line * (SCRATCH_IMPORT_MAX_BYTES // len(line) + 1)
    problem = assert_problem(batch(scratch_stack, body), 413, "batch_too_large")
    assert problem["limit_bytes"] == SCRATCH_IMPORT_MAX_BYTES
    assert "LOOKALIKE_IMPORT_MAX_BYTES" in problem["detail"]

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    address = urlsplit(scratch_stack.base_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    connection.request("POST", "/v1/searches/batch", pieces(), NDJSON, encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["code"]) == (413, "batch_too_large")
    connection.close()

    as_json = scratch_stack.post("/v1/searches/batch", json={"item_ids": ["a" * 100] * 20_000})
    assert "NDJSON" in assert_problem(as_json, 413, "batch_too_large")["detail"]


def test_results_are_there_once_a_batch_search_has_succeeded_and_of_no_other_job(stack: Stack, photo: bytes) -> None:
    search = stack.search(photo)
    assert_problem(stack.get(f"/v1/jobs/{search['id']}/results"), 404, "results_not_found")
    assert_problem(stack.get("/v1/jobs/unknown/results"), 404, "job_not_found")
    with paused(stack, "bulk"):
        job = batch(stack, [{"item_id": "sample-0001"}]).json()
        assert job["status"] == "queued"
        waiting = assert_problem(stack.get(job["links"]["results"]), 404, "results_not_found")
        assert "once it has succeeded" in waiting["detail"]
    assert len(answers_of(stack, stack.finished(job["id"]))) == 1


def test_a_waiting_batch_that_is_cancelled_is_never_answered(stack: Stack) -> None:
    with paused(stack, "bulk"):
        job = batch(stack, [{"item_id": "sample-0001"}]).json()
        assert stack.delete(f"/v1/jobs/{job['id']}").json()["status"] == "cancelled"
    finished(stack, batch(stack, [{"item_id": "sample-0002"}]))  # behind it in the queue
    assert stack.get(f"/v1/jobs/{job['id']}").json()["status"] == "cancelled"
    assert_problem(stack.get(job["links"]["results"]), 404, "results_not_found")


def test_a_running_batch_that_is_cancelled_stops(scratch_stack: Stack, shop: PictureServer) -> None:
    put_item(scratch_stack, "a", picture("a"))
    slow = [{"image_url": shop.add(f"/slow/{number}.png", picture(f"s{number}"))} for number in range(40)]
    job_id = batch(scratch_stack, [*([{"item_id": "a"}] * 200), *slow]).json()["id"]

    def job() -> dict[str, Any]:
        found: dict[str, Any] = scratch_stack.get(f"/v1/jobs/{job_id}").json()
        return found

    wait_until(lambda: (job()["progress"] or {}).get("done") == 200, 60, "the first part")
    assert (job()["status"], job()["progress"]["total"]) == ("running", 240)
    assert scratch_stack.delete(f"/v1/jobs/{job_id}").json()["status"] == "cancelled"
    shop.release.set()
    finished(scratch_stack, batch(scratch_stack, [{"item_id": "a"}]))  # behind it in the queue
    assert job()["status"] == "cancelled"


def test_the_end_of_a_batch_is_called_back(stack: Stack) -> None:
    receiver = Receiver()
    try:
        by_lines = batch(stack, [{"item_id": "sample-0001"}], params={"callback_url": receiver.url})
        by_json = stack.post("/v1/searches/batch", json={"item_ids": ["sample-0001"], "callback_url": receiver.url})
        jobs = {job["id"]: job for job in (finished(stack, by_lines), finished(stack, by_json))}
        wait_until(lambda: len(receiver.requests) == 2, 20, "two callbacks")
        for headers, body in receiver.requests:
            Webhook(WEBHOOK_SECRET).verify(body, headers)
            data = json.loads(body)["data"]
            assert data["result"] == jobs[data["id"]]["result"]
    finally:
        receiver.close()


def test_prefer_wait_answers_with_the_finished_batch(stack: Stack) -> None:
    headers = {**NDJSON, "Prefer": "wait=29"}
    answer = stack.post("/v1/searches/batch", data=b'{"item_id": "sample-0001"}', headers=headers)
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")


def test_an_empty_catalogue_says_so_in_each_answer(scratch_stack: Stack, shop: PictureServer) -> None:
    everything = finished(scratch_stack, scratch_stack.post("/v1/searches/batch", json={"all_items": True}))
    assert (everything["result"]["queries"], answers_of(scratch_stack, everything)) == (0, [])
    by_url = finished(scratch_stack, batch(scratch_stack, [{"image_url": shop.add("/a.png", picture("a"))}]))
    assert answers_of(scratch_stack, by_url)[0]["reason"] == "catalogue_empty"


def test_a_batch_that_is_sent_twice_under_one_idempotency_key_is_one_job(stack: Stack) -> None:
    for body, media_type in ((b'{"item_id": "sample-0001"}', NDJSON), (b'{"item_ids": ["sample-0001"]}', JSON)):
        headers = {**media_type, "Idempotency-Key": uuid.uuid4().hex}
        first, again = (stack.post("/v1/searches/batch", data=body, headers=headers) for _ in range(2))
        assert (again.status_code, again.json()["id"]) == (again.status_code, first.json()["id"])
        assert again.headers["Idempotent-Replayed"] == "true"
        assert len(answers_of(stack, stack.finished(first.json()["id"]))) == 1
