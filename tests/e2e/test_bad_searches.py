"""Searches that can't be answered: each refused with a stable code that says what to do."""

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.pictures import PictureServer, picture
from tests.e2e.steps import assert_failed, assert_problem, hits_of, search_json
from tests.stack import Stack

UPLOAD_MAX_BYTES = 20 * 1024 * 1024
AN_ITEM = "sample-0001"
REFUSED_URLS = [
    "ftp://example.com/hook",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "example.com/hook",
    "http://",
    "https://user:secret@example.com/hook",
    "http://169.254.169.254/latest/meta-data/",
    "http://2130706433/",
]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("k", 0),
        ("k", 101),
        ("k", "ten"),
        ("k", 1.5),
        ("k", True),
        ("min_score", 2),
        ("min_score", "high"),
        ("crop", {"x": 0.5, "y": 0, "width": 0.6, "height": 1}),
        ("crop", {"x": 0, "y": 0, "width": 0, "height": 1}),
        ("crop", {"x": 0, "y": 0, "width": 1}),
        ("crop", [0, 0, 1, 1]),
        ("filter", ["colour", "red"]),
        ("filtre", {"colour": "red"}),
    ],
)
def test_a_wrong_parameter_is_named_whether_it_comes_as_a_form_or_as_json(
    stack: Stack, photo: bytes, name: str, value: Any
) -> None:
    text = value if isinstance(value, str) else json.dumps(value)
    as_form = stack.post("/v1/searches", files={"image": photo}, data={name: text})
    as_json = stack.post("/v1/searches", json={"item_id": AN_ITEM, name: value})
    for answer in (as_form, as_json):
        problem = assert_problem(answer, 422, "invalid_parameter")
        assert name in problem["detail"]
        assert problem["errors"][0]["parameter"].split(".")[0] == name


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ({"color": "red"}, "filter_field_unknown"),
        ({"and": [{"price": {"lt": 9}}, {"not": {"color": "red"}}]}, "filter_field_unknown"),
        ({"price": "cheap"}, "filter_type_mismatch"),
        ({"price": {"lt": "9"}}, "filter_type_mismatch"),
        ({"price": True}, "filter_type_mismatch"),
        ({"colour": 7}, "filter_type_mismatch"),
        ({"colour": None}, "filter_type_mismatch"),
        ({"colour": {"in": ["red", 7]}}, "filter_type_mismatch"),
        ({"colour": {"like": "re%"}}, "filter_invalid"),
        ({"colour": {}}, "filter_invalid"),
        ({"colour": {"in": "red"}}, "filter_invalid"),
        ({"colour": {"in": []}}, "filter_invalid"),
        ({"and": {"colour": "red"}}, "filter_invalid"),
        ({"or": []}, "filter_invalid"),
        ({"not": [{"colour": "red"}]}, "filter_invalid"),
        ({"or": [{"colour": "red"}] * 65}, "filter_invalid"),
        ({"not": {"not": {"not": {"not": {"not": {"not": {"not": {"not": {"colour": "red"}}}}}}}}}, "filter_invalid"),
    ],
)
def test_a_wrong_filter_is_refused_at_once(stack: Stack, photo: bytes, condition: dict[str, Any], code: str) -> None:
    assert_problem(stack.post("/v1/searches", json={"item_id": AN_ITEM, "filter": condition}), 422, code)
    form = {"filter": json.dumps(condition)}
    assert_problem(stack.post("/v1/searches", files={"image": photo}, data=form), 422, code)


def test_an_unknown_filter_field_lists_the_known_ones(stack: Stack) -> None:
    answer = stack.post("/v1/searches", json={"item_id": AN_ITEM, "filter": {"color": "red"}})
    problem = assert_problem(answer, 422, "filter_field_unknown")
    assert {"brand", "category", "colour", "price"} <= set(problem["known_fields"])
    assert "colour" in problem["detail"]


def test_a_filter_value_of_the_wrong_type_is_told_the_right_one(stack: Stack) -> None:
    answer = stack.post("/v1/searches", json={"item_id": AN_ITEM, "filter": {"price": "cheap"}})
    problem = assert_problem(answer, 422, "filter_type_mismatch")
    assert (problem["field"], problem["expected"]) == ("price", "number")


def test_an_unknown_job_id_is_not_found_by_any_method(stack: Stack) -> None:
    unknown = "/v1/jobs/0123456789abcdef0123456789abcdef"
    for answer in (stack.get(unknown), stack.get(f"{unknown}?wait=20"), stack.delete(unknown)):
        assert_problem(answer, 404, "job_not_found")
    assert_problem(stack.get(f"{unknown}/errors"), 404, "job_not_found")
    assert_problem(stack.get("/v1/jobs/celery-task-meta"), 404, "job_not_found")


def test_an_item_that_does_not_exist_cant_be_searched_with(stack: Stack) -> None:
    assert_problem(stack.post("/v1/searches", json={"item_id": "nobody"}), 404, "item_not_found")
    assert_problem(stack.post("/v1/searches", json={"item_id": "no item"}), 422, "invalid_parameter")


def test_a_search_on_an_empty_catalogue_succeeds_with_no_hits_and_a_reason(scratch_stack: Stack) -> None:
    result = scratch_stack.search(picture("nothing to find"), fresh=True)["result"]
    assert (result["hits"], result["reason"]) == ([], "catalogue_empty")


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_a_url_that_must_not_be_called_is_refused(stack: Stack, photo: bytes, url: str) -> None:
    as_photo = stack.post("/v1/searches", json={"image_url": url})
    as_callback = stack.post("/v1/searches", json={"item_id": AN_ITEM, "callback_url": url})
    as_form = stack.post("/v1/searches", files={"image": photo}, data={"callback_url": url})
    of_import = stack.post("/v1/imports", json={"path": "products.csv", "callback_url": url})
    for answer in (as_photo, as_callback, as_form, of_import):
        assert "secret" not in assert_problem(answer, 422, "url_refused")["detail"]


def test_a_url_that_gives_no_photo_ends_as_a_failed_job(stack: Stack, shop: PictureServer) -> None:
    gone = shop.add("/gone.jpg", b"").replace("gone", "missing")
    page = shop.add("/page.jpg", b"<html>Not found</html>")
    huge = shop.add("/huge.jpg", picture("huge").ljust(UPLOAD_MAX_BYTES + 1))
    assert_failed(search_json(stack, image_url=gone), "image_fetch_failed")
    assert_failed(search_json(stack, image_url=page), "image_unsupported")
    assert_failed(search_json(stack, image_url=huge), "image_too_large")
    assert_failed(search_json(stack, image_url="http://nowhere.invalid/a.jpg"), "image_fetch_failed")


@pytest.mark.parametrize("body", [b"", b"k=3", b"[]", b'"photo"', b'{"item_id":', b'{"item_id":"\xff"}'])
def test_a_body_that_is_no_json_object_is_refused(stack: Stack, body: bytes) -> None:
    answer = stack.post("/v1/searches", data=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, 422, "invalid_parameter")


@pytest.mark.parametrize(
    "value", ["NaN", "-Infinity", "1e999", r'"\ud800"', '{"not":' * 100_000 + "1" + "}" * 100_000, "9" * 5000]
)
def test_json_that_no_answer_could_repeat_is_refused(stack: Stack, photo: bytes, value: str) -> None:
    condition = f'{{"price": {value}}}'
    body = f'{{"item_id": "{AN_ITEM}", "filter": {condition}}}'
    answer = stack.post("/v1/searches", data=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, 422, "invalid_parameter")
    answer = stack.post("/v1/searches", files={"image": photo}, data={"filter": condition})
    assert_problem(answer, 422, "invalid_parameter")


def test_filter_values_that_no_database_takes_are_refused(stack: Stack) -> None:
    for condition in ({"price": 10**400}, {"price": {"in": [10**400]}}, {"colour": "re\0d"}):
        answer = stack.post("/v1/searches", json={"item_id": AN_ITEM, "filter": condition})
        assert_problem(answer, 422, "filter_invalid")
    none = search_json(stack, item_id=AN_ITEM, filter={"price": {"gt": 2**70}})
    assert (hits_of(none), none["result"]["reason"]) == ([], "no_item_matches_filter")


def test_a_search_names_exactly_one_photo(stack: Stack, photo: bytes) -> None:
    for body in ({}, {"image_url": ""}, {"item_id": AN_ITEM, "image_url": "https://example.com/a.jpg"}):
        assert_problem(stack.post("/v1/searches", json=body), 422, "invalid_parameter")
    form = [("image", photo), ("image", photo)]
    assert_problem(stack.post("/v1/searches", files=form), 422, "invalid_parameter")
    problem = assert_problem(stack.post("/v1/searches", files={"photo": photo}), 422, "invalid_parameter")
    assert "'image'" in problem["detail"]
    assert_problem(stack.post("/v1/searches", data={"k": "3"}), 422, "invalid_parameter")


def test_part_of_a_jobs_keys_is_no_job(stack: Stack, photo: bytes) -> None:
    job_id = stack.search(photo)["id"]
    for part in ("image", "finished", "deliveries"):
        assert_problem(stack.get(f"/v1/jobs/{job_id}:{part}"), 422, "invalid_parameter")


def test_a_body_far_over_any_limit_is_refused_before_it_is_sent(stack: Stack) -> None:
    def answer_to(content_type: str, length: int, path: str = "/v1/searches", method: str = "POST") -> tuple[int, str]:
        connection = http.client.HTTPConnection(urlsplit(stack.base_url).netloc, timeout=20)
        connection.putrequest(method, path)
        connection.putheader("Content-Type", content_type)
        connection.putheader("Content-Length", str(length))
        connection.endheaders()
        answer = connection.getresponse()
        problem = json.loads(answer.read())
        connection.close()
        return answer.status, problem["code"]

    form = "multipart/form-data; boundary=x"
    assert answer_to(form, UPLOAD_MAX_BYTES + 2 * 1024**2) == (413, "image_too_large")
    assert answer_to(form, 16 * UPLOAD_MAX_BYTES + 2 * 1024**2, "/v1/items/a", "PUT") == (413, "image_too_large")
    assert answer_to(form, 10 * 1024**3, "/v1/imports") == (413, "import_too_large")
    assert answer_to("application/json", 2 * 1024**2) == (413, "request_too_large")
