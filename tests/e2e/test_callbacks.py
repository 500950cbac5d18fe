"""Webhook callbacks, with a real receiver."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from tests.receiver import Receiver
from tests.stack import WEBHOOK_SECRET, Stack, wait_until


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def test_a_search_and_an_import_call_back_with_a_valid_signature(
    stack: Stack, sample_catalogue: Path, receiver: Receiver
) -> None:
    photo = (sample_catalogue / "photo.jpg").read_bytes()
    search = stack.search(photo, k=1, callback_url=receiver.url)
    broken = stack.imported(b"id,title,image\n", callback_url=receiver.url)
    wait_until(lambda: len(receiver.requests) == 2, 20, "two callbacks")

    for headers, body in receiver.requests:
        Webhook(WEBHOOK_SECRET).verify(body, headers)
        event = json.loads(body)
        job = {search["id"]: search, broken["id"]: broken}[event["data"]["id"]]
        assert event["type"] == "job.finished"
        assert headers["webhook-id"] == f"msg_{job['id']}"
        assert event["data"]["status"] == job["status"]
    wait_until(lambda: len(stack.get(f"/v1/jobs/{search['id']}").json()["deliveries"]) == 1, 5, "the log")
    delivery = stack.get(f"/v1/jobs/{search['id']}").json()["deliveries"][0]
    assert (delivery["attempt"], delivery["status"], delivery["next_attempt_at"]) == (1, 204, None)


def test_a_failing_receiver_is_tried_again_with_the_same_id_and_body(
    new_stack: Callable[..., Stack], receiver: Receiver, sample_catalogue: Path
) -> None:
    stack = new_stack(LOOKALIKE_WEBHOOK_BACKOFF_SECONDS="0.2", LOOKALIKE_WEBHOOK_MAX_ATTEMPTS="3")
    receiver.statuses = [500, 503]
    photo = (sample_catalogue / "photo.jpg").read_bytes()
    job = stack.search(photo, callback_url=receiver.url)
    wait_until(lambda: len(receiver.requests) == 3, 30, "the third try")

    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 1
    assert len({body for _, body in receiver.requests}) == 1
    wait_until(lambda: len(stack.get(f"/v1/jobs/{job['id']}").json()["deliveries"]) == 3, 5, "the log")
    deliveries = stack.get(f"/v1/jobs/{job['id']}").json()["deliveries"]
    assert [delivery["status"] for delivery in deliveries] == [500, 503, 204]
    assert deliveries[0]["next_attempt_at"] is not None

    receiver.statuses = [410]
    gone = stack.search(photo, k=3, callback_url=receiver.url)
    wait_until(lambda: bool(stack.get(f"/v1/jobs/{gone['id']}").json()["deliveries"]), 20, "the try")
    log = stack.get(f"/v1/jobs/{gone['id']}").json()["deliveries"]
    assert [(entry["status"], entry["next_attempt_at"]) for entry in log] == [(410, None)]


def test_callbacks_to_private_addresses_are_refused_unless_allowed(new_stack: Callable[..., Stack]) -> None:
    stack = new_stack(LOOKALIKE_ALLOW_PRIVATE_URLS="false")
    for url in ("http://127.0.0.1:9/hook", "http://localhost/hook", "http://169.254.169.254/", "ftp://example.com/x"):
        answer = stack.post("/v1/searches", json={"image_url": "https://example.com/a.jpg", "callback_url": url})
        assert (answer.status_code, answer.json()["code"]) == (422, "url_refused")
        answer = stack.post("/v1/searches", json={"image_url": url})
        assert (answer.status_code, answer.json()["code"]) == (422, "url_refused")
