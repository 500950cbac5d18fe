"""Releases over the API: built by a job, compared, activated, and back."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.steps import assert_failed, assert_problem
from tests.small_shop import trained_lite0
from tests.stack import Stack, wait_until, zipped

ITEMS = 60
BUILD_SECONDS = 150


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, sample_catalogue: Path) -> Iterator[Stack]:
    """A stack with some items, and a folder of encoders: a trained one, and one that is empty."""
    folder = tmp_path_factory.mktemp("releases")
    (folder / "encoders-of-ours" / "empty").mkdir(parents=True)
    trained_lite0(folder / "training").rename(folder / "encoders-of-ours" / "trained")
    stack = Stack.start(folder, {"LOOKALIKE_ENCODER_ROOT": str(folder / "encoders-of-ours")})
    try:
        assert stack.imported(zipped(sample_catalogue, ITEMS), "sample.zip")["result"]["imported"] == ITEMS
        yield stack
    finally:
        stack.group.stop()


def build(stack: Stack, **asked: Any) -> dict[str, Any]:
    answer = stack.post("/v1/releases", json=asked)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    assert (job["kind"], answer.headers["Location"]) == ("reindex", f"/v1/jobs/{job['id']}")
    return job


def listed(stack: Stack) -> dict[str, dict[str, Any]]:
    return {release["id"]: release for release in stack.get("/v1/releases").json()["releases"]}


def activate(stack: Stack, release_id: str) -> None:
    answer = stack.post(f"/v1/releases/{release_id}/activate")
    assert (answer.status_code, answer.json()["is_active"]) == (200, True), answer.text


@pytest.mark.timeout(300)
def test_a_release_is_built_beside_the_active_one_compared_and_activated_and_one_can_go_back(
    stack: Stack, photo: bytes
) -> None:
    (first,) = listed(stack)
    job, steps = build(stack, label="category"), set[str]()

    def has_ended() -> bool:
        seen = stack.get(f"/v1/jobs/{job['id']}").json()
        if seen["progress"]:
            steps.add(seen["progress"]["step"])
        return bool(seen["finished_at"])

    wait_until(has_ended, BUILD_SECONDS, "the release is built")
    job = stack.finished(job["id"])
    assert job["status"] == "succeeded", job
    result = job["result"]
    assert len(steps) >= 3, steps
    images = result["embedded"]
    assert images >= ITEMS, "some have several"
    assert not result["is_active"]
    assert result["release"] != first
    comparison = result["comparison"]
    assert (comparison["with"], comparison["label"], comparison["images"]) == (first, "category", images)
    assert comparison["agreement_at_10"] > 0.7
    assert abs(comparison["gain"]) < 0.2

    releases = listed(stack)
    assert [release["is_active"] for release in releases.values()].count(True) == 1
    assert releases[first]["is_active"]
    assert releases[result["release"]]["is_finished"]
    assert releases[result["release"]]["manifest"]["comparison"] == comparison
    assert stack.search(photo)["result"]["release"] == first

    for chosen in (result["release"], first):
        activate(stack, chosen)
        wait_until(lambda: stack.search(photo)["result"]["release"] == chosen, 60, "searches use it")  # noqa: B023
        assert stack.get(f"/v1/releases/{chosen}").json()["is_active"]


def test_a_trained_encoder_becomes_a_release_by_one_call_and_is_compared_before_anything_switches(
    stack: Stack,
) -> None:
    active = next(release["id"] for release in listed(stack).values() if release["is_active"])
    job = stack.finished(build(stack, encoder="trained", label="category", runtime="torch")["id"], BUILD_SECONDS)
    assert job["status"] == "succeeded", job
    result = job["result"]
    assert result["embedded"] >= ITEMS
    assert (result["is_active"], result["comparison"]["with"]) == (False, active)
    release = listed(stack)[result["release"]]
    assert release["manifest"]["encoder"]["dim"] == 64
    assert 0 < release["manifest"]["encoder"]["trained"]["val"]["p_at_5"] <= 1
    assert listed(stack)[active]["is_active"]


def test_a_build_that_is_cancelled_leaves_no_release_that_could_serve(stack: Stack) -> None:
    job = build(stack, runtime="openvino-int8", label="colour")
    wait_until(lambda: stack.get(f"/v1/jobs/{job['id']}").json()["progress"] is not None, 60, "the build has begun")
    assert stack.delete(f"/v1/jobs/{job['id']}").json()["status"] == "cancelled"
    after = stack.finished(build(stack, label="no such attribute")["id"], BUILD_SECONDS)
    assert_failed(after, "release_not_built")  # the bulk worker takes it once it has let go of the other
    assert stack.get(f"/v1/jobs/{job['id']}").json()["status"] == "cancelled"


def test_what_can_not_be_built_fails_with_the_reason(stack: Stack) -> None:
    job = stack.finished(build(stack, label="no such attribute")["id"], BUILD_SECONDS)
    assert "category" in assert_failed(job, "release_not_built")["detail"]
    job = stack.finished(build(stack, encoder="empty")["id"], BUILD_SECONDS)
    assert "empty" in assert_failed(job, "release_not_built")["detail"]


def test_a_release_of_an_empty_catalogue_is_refused_with_the_remedy(new_stack: Callable[..., Stack]) -> None:
    empty = new_stack()
    error = assert_failed(empty.finished(build(empty)["id"], BUILD_SECONDS), "release_not_built")
    assert "Import items first" in error["detail"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"recall_target": 1.5}, "invalid_parameter"),
        ({"recall_target": True}, "invalid_parameter"),
        ({"runtime": "tensorrt"}, "invalid_parameter"),
        ({"memory_budget_bytes": 0}, "invalid_parameter"),
        ({"activated": True}, "invalid_parameter"),
        ({"encoder": "../elsewhere"}, "path_refused"),
        ({"encoder": "missing"}, "encoder_not_found"),
        ({"callback_url": "ftp://example.com/"}, "url_refused"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(stack: Stack, body: dict[str, Any], code: str) -> None:
    assert_problem(stack.post("/v1/releases", json=body), 422, code)


def test_an_encoder_is_named_only_where_the_server_has_an_encoder_root(scratch_stack: Stack) -> None:
    problem = assert_problem(scratch_stack.post("/v1/releases", json={"encoder": "x"}), 422, "encoder_not_found")
    assert "LOOKALIKE_ENCODER_ROOT" in problem["detail"]


@pytest.mark.parametrize(("method", "path"), [("get", ""), ("post", "/activate")])
def test_an_unknown_release_is_not_found(stack: Stack, method: str, path: str) -> None:
    assert_problem(getattr(stack, method)(f"/v1/releases/nothing{path}"), 404, "release_not_found")
