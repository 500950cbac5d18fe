import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import create_engine

from shared import errors
from shared.errors import LookalikeError
from shared.schemas import JobError
from web.errors import PROBLEM_TYPE, STATUSES, register_error_handlers, status_of


def descendants(kind: type[LookalikeError]) -> Iterator[type[LookalikeError]]:
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from descendants(child)


ALL = list(descendants(LookalikeError))
LEAVES = [kind for kind in ALL if not kind.__subclasses__()]
DRAWN = re.compile(r"^(?P<indent>[ │├└─]*)(?P<name>[A-Z]\w+)(?: {2,}(?P<note>\S.*))?$")


def drawn_lines() -> list[tuple[int, str, str]]:
    """Return depth, name and note of each line of the drawing in the module's docstring."""
    drawing = (errors.__doc__ or "").split("\n\n")[1]
    lines = []
    for line in drawing.splitlines():
        match = DRAWN.match(line)
        assert match, f"the drawing has an odd line: {line!r}"
        lines.append((len(match["indent"]) // 4 - 1, match["name"], match["note"] or ""))
    return lines


def test_the_drawing_shows_exactly_the_tree() -> None:
    parents: dict[int, str] = {}
    drawn = set()
    for depth, name, _ in drawn_lines():
        parents[depth] = name
        if depth:
            drawn.add((parents[depth - 1], name))
    assert drawn == {(kind.__bases__[0].__name__, kind.__name__) for kind in ALL}


def test_the_drawing_names_the_code_of_each_leaf_and_of_nothing_else() -> None:
    codes = {name: note for _, name, note in drawn_lines()}
    assert {name: codes[name] for name in (leaf.__name__ for leaf in LEAVES)} == {
        leaf.__name__: leaf.code for leaf in LEAVES
    }
    branches = [kind for kind in ALL if kind not in LEAVES]
    assert branches
    assert not any(branch.code for branch in branches)
    assert not any(re.fullmatch(r"[a-z]+_[a-z_]+", codes[branch.__name__]) for branch in branches)


def test_every_leaf_has_a_code_of_its_own() -> None:
    codes = [leaf.code for leaf in LEAVES]
    assert len(codes) == len(set(codes)) > 30
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes), codes


@pytest.mark.parametrize("kind", [LookalikeError, *ALL])
def test_every_title_is_one_short_sentence_of_its_own(kind: type[LookalikeError]) -> None:
    assert (kind.__doc__ or "").endswith("."), "the docstring is the title"
    title = kind.title()
    assert title
    assert not title.endswith(".")
    assert len(title) <= 80
    titles = [other.title() for other in ALL]
    assert titles.count(title) == (kind is not LookalikeError)


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_leaf_has_an_http_status(leaf: type[LookalikeError]) -> None:
    assert 400 <= status_of(leaf) < 600
    assert status_of(leaf) >= 500 or not issubclass(leaf, errors.Unavailable | errors.JobFailure)


def test_the_most_derived_class_decides_the_status() -> None:
    assert status_of(errors.TooManyPixels) == STATUSES[errors.TooManyPixels] == 413
    assert status_of(errors.BrokenImage) == STATUSES[errors.InvalidImage] == 422
    assert status_of(errors.JobNotFound) == 404
    with pytest.raises(StopIteration):
        status_of(LookalikeError)


def test_statuses_are_given_to_failures_of_ours_alone() -> None:
    assert set(STATUSES) <= set(ALL)


def test_a_failure_crosses_the_wire_as_data() -> None:
    error = errors.UnknownFilterField("No item has a field 'size'.", field="size", known_fields=["colour"])
    wire = json.loads(json.dumps(error.to_wire()))
    assert wire == {
        "code": "filter_field_unknown",
        "title": "The filter names a field that the catalogue doesn't have",
        "detail": "No item has a field 'size'.",
        "field": "size",
        "known_fields": ["colour"],
    }
    assert JobError.model_validate(wire).model_dump() == wire
    assert str(error) == error.detail


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_leaf_becomes_a_problem_body(leaf: type[LookalikeError]) -> None:
    app = Flask(__name__)
    register_error_handlers(app)

    @app.get("/it")
    def fail() -> str:
        raise leaf("What is wrong, and the remedy.", limit_bytes=5)

    answer = app.test_client().get("/it")
    assert answer.status_code == status_of(leaf)
    assert answer.content_type == PROBLEM_TYPE
    assert answer.json == {
        "type": "about:blank",
        "title": leaf.title(),
        "status": status_of(leaf),
        "detail": "What is wrong, and the remedy.",
        "code": leaf.code,
        "instance": "/it",
        "limit_bytes": 5,
    }
    assert ("Retry-After" in answer.headers) == (answer.status_code in (429, 503))


def test_a_pool_whose_connections_are_all_in_use_is_a_database_out_of_reach(tmp_path: Path) -> None:
    app = Flask(__name__)
    register_error_handlers(app)
    engine = create_engine(f"sqlite:///{tmp_path}/x.sqlite3", pool_size=1, max_overflow=0, pool_timeout=0.01)

    @app.get("/it")
    def use_two() -> str:
        with engine.connect(), engine.connect():
            return "both"

    answer = app.test_client().get("/it")
    engine.dispose()
    assert answer.json
    assert (answer.status_code, answer.json["code"]) == (503, "database_unavailable")
    assert answer.headers["Retry-After"]


def test_failures_of_flask_and_unforeseen_ones_become_problem_bodies_too(caplog: pytest.LogCaptureFixture) -> None:
    app = Flask(__name__)
    register_error_handlers(app)

    @app.get("/broken")
    def fail() -> str:
        return str(1 // int("0"))

    client = app.test_client()
    for answer, status, code in (
        (client.get("/nowhere"), 404, "route_not_found"),
        (client.post("/broken"), 405, "method_not_allowed"),
        (client.get("/broken"), 500, "internal"),
    ):
        assert answer.json
        assert (answer.status_code, answer.json["code"], answer.content_type) == (status, code, PROBLEM_TYPE)
    assert client.post("/broken").headers["Allow"]
    assert "ZeroDivisionError" in caplog.text, "the log has the traceback, the answer has not"
    assert "ZeroDivision" not in client.get("/broken").text
