"""What operators and developers ask: alive, ready, metrics, the OpenAPI document and the page that shows it."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from playwright.sync_api import Page
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Launcher
from tests.e2e.pictures import picture
from tests.e2e.steps import PROBLEM_TYPE, assert_problem
from tests.stack import Stack, wait_until

PUBLIC_NAME = "shop.example"
OPERATIONS = {
    ("post", "/v1/searches"),
    ("post", "/v1/searches/batch"),
    ("get", "/v1/jobs/{job_id}"),
    ("delete", "/v1/jobs/{job_id}"),
    ("get", "/v1/jobs/{job_id}/errors"),
    ("get", "/v1/jobs/{job_id}/results"),
    ("post", "/v1/releases"),
    ("get", "/v1/releases"),
    ("get", "/v1/releases/{release_id}"),
    ("post", "/v1/releases/{release_id}/activate"),
    ("post", "/v1/imports"),
    ("get", "/v1/items"),
    ("get", "/v1/items/{item_id}"),
    ("put", "/v1/items/{item_id}"),
    ("delete", "/v1/items/{item_id}"),
    ("get", "/v1/items/{item_id}/image"),
    ("get", "/v1/attributes"),
    ("post", "/v1/keys"),
    ("get", "/v1/keys"),
    ("delete", "/v1/keys/{key_id}"),
    ("post", "/v1/keys/{key_id}/rotate"),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
}


@pytest.fixture(scope="module")
def document(stack: Stack) -> dict[str, Any]:
    answer = stack.get("/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    document: dict[str, Any] = answer.json()
    return document


def operations_of(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def assert_documented(document: dict[str, Any], operation: dict[str, Any], answer: requests.Response) -> None:
    """Check an answer's status, media type and body against the document."""
    responses = operation["responses"]
    described = responses.get(str(answer.status_code)) or (None if answer.ok else responses["default"])
    assert described is not None, f"{answer.status_code} is not documented: {answer.text}"
    media_type = answer.headers.get("Content-Type", "").partition(";")[0]
    if "content" in described:
        schema = described["content"][media_type]["schema"]
        whole = {**schema, "components": document["components"]}
        errors = [error.message for error in OAS31Validator(whole).iter_errors(answer.json())]
        assert errors == []


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_the_document_names_every_operation_with_its_failures(document: dict[str, Any]) -> None:
    assert {(method, path) for method, path, _ in operations_of(document)} == OPERATIONS
    for method, path, operation in operations_of(document):
        assert operation["summary"], (method, path)
        assert PROBLEM_TYPE in operation["responses"]["default"]["content"]
        assert operation["responses"]["422"]["content"].keys() == {PROBLEM_TYPE}
    for path in ("/v1/searches", "/v1/imports"):
        body = document["paths"][path]["post"]["requestBody"]["content"]
        assert set(body) == {"multipart/form-data", "application/json"}


@pytest.mark.parametrize(("method", "path"), sorted(OPERATIONS))
def test_every_documented_route_answers_as_documented(
    stack: Stack, document: dict[str, Any], method: str, path: str
) -> None:
    url = stack.base_url + path.format(job_id="unknown", item_id="nobody", release_id="nothing", key_id="0" * 12)
    body = None if method in ("get", "delete") else {"unknown": 1}
    answer = requests.request(method, url, json=body, timeout=60)
    assert answer.status_code in (200, 404, 422)
    assert "route_not_found" not in answer.text
    assert_documented(document, document["paths"][path][method], answer)


def test_what_succeeds_is_as_documented(stack: Stack, document: dict[str, Any], photo: bytes) -> None:
    paths = document["paths"]
    waiting = {"Prefer": "wait=20", "Cache-Control": "no-cache"}
    search = stack.post("/v1/searches", files={"image": photo}, headers=waiting)
    assert_documented(document, paths["/v1/searches"]["post"], search)
    bad = stack.post("/v1/imports", files={"file": ("p.csv", b"id,image\na,b.png\n")})
    assert_documented(document, paths["/v1/imports"]["post"], bad)
    job = stack.finished(bad.json()["id"])
    for job_id in (job["id"], search.json()["id"]):
        assert_documented(document, paths["/v1/jobs/{job_id}"]["get"], stack.get(f"/v1/jobs/{job_id}"))
    errors = stack.get(job["links"]["errors"])
    assert len(errors.json()["errors"]) == 1
    assert_documented(document, paths["/v1/jobs/{job_id}/errors"]["get"], errors)
    assert_documented(document, paths["/v1/items/{item_id}"]["get"], stack.get("/v1/items/sample-0001"))


def test_a_form_without_photos_writes_an_item_as_the_document_allows(
    scratch_stack: Stack, document: dict[str, Any]
) -> None:
    write = document["paths"]["/v1/items/{item_id}"]["put"]
    form = write["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert "image" not in form.get("required", [])
    assert (form["properties"]["image"]["type"], form["properties"]["image"]["maxItems"]) == ("array", 16)
    item = [("item", (None, '{"title": "Bag"}'))]
    new = scratch_stack.put("/v1/items/bag", files=item)
    assert new.status_code == 201
    for answer in (
        new,
        scratch_stack.put("/v1/items/bag", files=item),
        scratch_stack.put("/v1/items/bag", files=[*item, ("image", picture("bag"))]),
        scratch_stack.put("/v1/items/bag", files=[*item, ("image", picture("b"))], headers={"Prefer": "wait=20"}),
    ):
        assert_documented(document, write, answer)
    for path, field in (("/v1/searches", "image"), ("/v1/imports", "file")):
        form = document["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert form["required"] == [field]


def test_a_path_or_a_method_that_there_is_not_is_a_problem_too(stack: Stack) -> None:
    assert_problem(stack.get("/v1/nothing"), 404, "route_not_found")
    refused = stack.put("/v1/searches")
    assert_problem(refused, 405, "method_not_allowed")
    assert set(refused.headers["Allow"].split(", ")) == {"OPTIONS", "POST"}


def test_alive_and_ready(stack: Stack) -> None:
    assert stack.get("/healthz").json() == {"status": "ok"}
    wait_until(lambda: stack.get("/readyz").json()["warnings"] == {}, 20, "all workers are there")
    ready = stack.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {
        "ready": True,
        "checks": {"redis": "ok", "database": "ok"},
        "warnings": {},
        "search_workers": 1,
        "bulk_workers": 1,
    }


def samples(stack: Stack) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(stack.get("/metrics").text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_metrics_count_jobs_and_requests_and_show_queues_and_workers(stack: Stack, photo: bytes) -> None:
    searches = ("lookalike_jobs_total", (("code", ""), ("kind", "search"), ("status", "succeeded")))
    before = samples(stack)
    for _ in range(2):
        stack.search(photo, fresh=True)
    stack.get("/v1/items/sample-0001")
    after = samples(stack)

    assert after[searches] - before[searches] == 2
    for queue in ("search", "bulk", "callbacks", "maintenance"):
        assert after["lookalike_workers", (("queue", queue),)] == 1
        assert ("lookalike_queue_messages", (("queue", queue),)) in after
    assert after["lookalike_queue_messages", (("queue", "search"),)] == 0
    assert after["lookalike_redis_up", ()] == 1
    reads = (("method", "GET"), ("route", "/v1/items/<item_id>"))
    assert after["lookalike_http_requests_total", (*reads, ("status", "200"))] >= 1
    assert after["lookalike_http_request_seconds_count", reads] >= 1
    assert not any("sample-0001" in value for _, labels in after for _, value in labels)


@pytest.fixture
def browser_page(chromium_launcher: Launcher) -> Iterator[Page]:
    # Swagger UI keeps to itself on localhost; elsewhere it would have its document checked by a third party.
    browser = chromium_launcher(f"--host-resolver-rules=MAP {PUBLIC_NAME} 127.0.0.1")
    yield browser.new_page()
    browser.close()


def test_the_page_of_the_documentation_shows_it_and_loads_no_third_party_host(stack: Stack, browser_page: Page) -> None:
    base_url = stack.base_url.replace("127.0.0.1", PUBLIC_NAME)
    hosts: set[str] = set()
    browser_page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    browser_page.goto(f"{base_url}/docs")
    browser_page.get_by_text("/v1/searches", exact=True).wait_for(timeout=60_000)
    assert browser_page.locator(".opblock").count() == len(OPERATIONS)
    browser_page.wait_for_load_state("networkidle")
    assert hosts - {""} == {urlsplit(base_url).netloc}
