"""The client's commands over HTTP, against a stand-in whose bodies are made with the wire schemas of the API."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask, Response, jsonify, request
from werkzeug.serving import make_server

from client.__main__ import client
from shared import schemas

REPOSITORY = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 20
PHOTO = b"\xff\xd8 photo"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROW_ERRORS = 25
FORMULA = '=HYPERLINK("http://127.0.0.1")'  # the last of them is of an item with this id
RESULTS = b'{"line":1,"item_id":"a","hits":[]}\n' * 3


def _job(kind: str, status: str, **more: Any) -> dict[str, Any]:
    job = schemas.Job(
        id=f"{kind}-1", kind=schemas.JobKind(kind), status=schemas.JobStatus(status), created_at=NOW, **more
    )
    return job.model_dump(mode="json")


def _search_job() -> dict[str, Any]:
    hit = schemas.Hit(rank=1, item_id="sku-1", score=0.9, title="Red bag", attributes={"colour": "red"}, image_url="/i")
    result = schemas.SearchResult(
        hits=[hit],
        release="r1",
        catalogue_version=1,
        answered_from=schemas.AnsweredFrom.ENGINE,
        timings_ms={"embed": 2.0, "total": 3.0},
    )
    return _job("search", "succeeded", result=result)


def _import_job(failed: int) -> dict[str, Any]:
    result = schemas.ImportResult(rows=40, imported=40 - failed, failed=failed, deleted=0, embedded=40 - failed)
    return _job("import", "succeeded", result=result)


def _batch_job(failed: int = 0) -> dict[str, Any]:
    result = schemas.BatchResult(
        queries=40, failed=failed, seconds=2.0, releases=["r1"], results="/v1/jobs/batch_search-1/results"
    )
    return _job("batch_search", "succeeded", result=result)


@dataclass
class StandIn:
    """Answers as the script says, and remembers what was asked."""

    url: str = ""
    jobs: list[Any] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    form: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    lines: bytes = b""
    uploads: dict[str, tuple[str | None, bytes]] = field(default_factory=dict)
    submitted: dict[str, Any] = field(default_factory=lambda: _job("import", "queued"))
    readiness: tuple[dict[str, Any], int] = field(default_factory=lambda: ({}, 200))
    refusals: list[Any] = field(default_factory=list)  # of POSTs, before one is answered
    idempotency_keys: list[str | None] = field(default_factory=list)


def _problem(status: int, code: str, detail: str, **headers: str) -> Response:
    problem = schemas.Problem(type="about:blank", title="Title", status=status, detail=detail, code=code)
    response = jsonify(problem.model_dump(mode="json"))
    response.status_code, response.content_type = status, "application/problem+json"
    response.headers.update(headers)
    return response


def _create_stand_in(stand_in: StandIn) -> Flask:
    app = Flask(__name__)

    @app.before_request
    def remember() -> Response | None:
        stand_in.asked.append((request.method, request.full_path.rstrip("?")))
        stand_in.form = request.form.to_dict()
        stand_in.body = request.get_json() if request.is_json else {}
        if request.files:
            stand_in.uploads = {name: (file.filename, file.read()) for name, file in request.files.items()}
        if request.method != "POST":
            return None
        stand_in.idempotency_keys.append(request.headers.get("Idempotency-Key"))
        return stand_in.refusals.pop(0)() if stand_in.refusals else None

    @app.post("/v1/searches")
    def create_search() -> Response:
        if "color" in (stand_in.body.get("filter") or json.loads(stand_in.form.get("filter", "{}"))):
            return _problem(400, "filter_field_unknown", "There is no field 'color'; known fields: colour.")
        return jsonify(stand_in.submitted)

    @app.post("/v1/searches/batch")
    def create_batch() -> Response:
        stand_in.lines = request.get_data()
        return jsonify(stand_in.submitted)

    @app.get("/v1/jobs/<job_id>/results")
    def results(job_id: str) -> Response:
        if job_id == "unknown":
            return _problem(404, "job_not_found", "There is no job 'unknown'.")
        return Response(RESULTS, mimetype="application/x-ndjson")

    @app.post("/v1/imports")
    def create_import() -> Response:
        return jsonify(stand_in.submitted)

    @app.get("/v1/jobs/<job_id>")
    def get_job(job_id: str) -> Response:
        if job_id == "unknown":
            return _problem(404, "job_not_found", "There is no job 'unknown'.")
        answer = stand_in.jobs.pop(0) if len(stand_in.jobs) > 1 else stand_in.jobs[0]
        return answer() if callable(answer) else jsonify(answer)

    @app.delete("/v1/jobs/<job_id>")
    def cancel(job_id: str) -> Response:
        if job_id == "finished":
            return _problem(409, "job_already_finished", "The job has ended.")
        return jsonify(_job("import", "cancelled"))

    @app.get("/v1/jobs/<job_id>/errors")
    def errors(job_id: str) -> Response:
        first = int(request.args.get("cursor", 0))
        limit = 10
        lines = range(first, min(first + limit, ROW_ERRORS))
        rows = [
            schemas.RowError(
                line=line + 2,
                item_id=f"i{line}" if line < ROW_ERRORS - 1 else FORMULA,
                code="image_missing",
                detail="gone",
            )
            for line in lines
        ]
        cursor = str(first + limit) if first + limit < ROW_ERRORS else None
        return jsonify(schemas.RowErrorPage(errors=rows, next_cursor=cursor).model_dump(mode="json"))

    @app.get("/readyz")
    def readyz() -> tuple[Response, int]:
        body, status = stand_in.readiness
        return jsonify(body), status

    return app


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    script = StandIn()
    server = make_server("127.0.0.1", 0, _create_stand_in(script), threaded=True)
    script.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield script
    server.shutdown()
    thread.join()
    server.server_close()


def _run(stand_in: StandIn, *arguments: str) -> Result:
    return CliRunner().invoke(client, ["--server", stand_in.url, *arguments])


@pytest.fixture
def photo(tmp_path: Path) -> str:
    file = tmp_path / "photo.jpg"
    file.write_bytes(PHOTO)
    return str(file)


@pytest.fixture
def catalogue(tmp_path: Path) -> str:
    file = tmp_path / "products.csv"
    file.write_text("sku,image\na,https://example.com/1.jpg\n")
    return str(file)


# search


def test_a_photo_is_uploaded_with_what_was_asked_and_the_hits_are_shown(stand_in: StandIn, photo: str) -> None:
    stand_in.submitted = _search_job()
    options = ["-k", "3", "--min-score", "0.5", "--filter", '{"colour": "red"}', "--crop", "0.1,0.2,0.5,0.6"]
    result = _run(stand_in, "search", photo, *options)
    assert result.exit_code == 0, result.output
    assert "sku-1" in result.stdout
    assert "Red bag" in result.stdout
    assert stand_in.uploads == {"image": ("photo.jpg", PHOTO)}
    sent = {name: json.loads(value) for name, value in stand_in.form.items()}
    assert schemas.SearchParameters.model_validate(sent) == schemas.SearchParameters(
        k=3, min_score=0.5, filter={"colour": "red"}, crop=schemas.Crop(x=0.1, y=0.2, width=0.5, height=0.6)
    )


@pytest.mark.parametrize(("option", "name"), [("--url", "image_url"), ("--item", "item_id")])
def test_a_url_and_an_item_are_sent_as_json(stand_in: StandIn, option: str, name: str) -> None:
    stand_in.submitted = _search_job()
    assert _run(stand_in, "search", option, "value").exit_code == 0
    assert stand_in.body == {"k": 10, name: "value"}
    schemas.SearchRequest.model_validate(stand_in.body)


def test_a_search_that_takes_longer_is_polled(stand_in: StandIn, photo: str) -> None:
    stand_in.submitted = _job("search", "queued")
    stand_in.jobs = [_job("search", "running"), _search_job()]
    result = _run(stand_in, "--json", "search", photo)
    assert result.exit_code == 0
    assert json.loads(result.stdout) == _search_job()
    assert [path for method, path in stand_in.asked if method == "GET"] == ["/v1/jobs/search-1?wait=1"] * 2


def test_a_refused_search_is_one_line_with_the_detail(stand_in: StandIn) -> None:
    result = _run(stand_in, "search", "--item", "x", "--filter", '{"color": "red"}')
    assert result.exit_code == 1
    expected = "error: There is no field 'color'; known fields: colour. (filter_field_unknown, HTTP 400)"
    assert result.stderr.strip() == expected
    assert result.stdout == ""


def test_what_is_refused_for_now_is_sent_again_when_the_server_says(stand_in: StandIn, photo: str) -> None:
    stand_in.submitted = _search_job()
    stand_in.refusals = [
        lambda: _problem(429, "rate_limited", "Come again.", **{"Retry-After": "1"}),
        lambda: _problem(503, "queue_full", "Come again.", **{"Retry-After": "1"}),
    ]
    started = time.monotonic()
    assert _run(stand_in, "search", photo).exit_code == 0
    assert 2 <= time.monotonic() - started < DEADLINE_SECONDS
    assert stand_in.uploads == {"image": ("photo.jpg", PHOTO)}
    keys = stand_in.idempotency_keys
    assert (len(keys), len(set(keys)), bool(keys[0])) == (3, 1, True), "one request, so that it makes one job"


def test_an_upload_that_is_refused_for_now_is_sent_again_whole(stand_in: StandIn, catalogue: str) -> None:
    stand_in.refusals = [lambda: _problem(429, "too_many_jobs", "Come again.", **{"Retry-After": "1"})]
    stand_in.jobs = [_import_job(failed=0)]
    assert _run(stand_in, "import", catalogue).exit_code == 0
    assert stand_in.uploads == {"file": ("products.csv", Path(catalogue).read_bytes())}


def test_nobody_waits_longer_than_a_minute(stand_in: StandIn, photo: str) -> None:
    stand_in.refusals = [lambda: _problem(429, "rate_limited", "Come again in an hour.", **{"Retry-After": "3600"})]
    result = _run(stand_in, "search", photo)
    assert (result.exit_code, len(stand_in.idempotency_keys)) == (1, 1)
    assert result.stderr.strip() == "error: Come again in an hour. (rate_limited, HTTP 429)"


def test_a_failed_search_ends_with_its_error(stand_in: StandIn, photo: str) -> None:
    error = schemas.JobError(code="image_broken", title="Broken", detail="The photo ends too early.")
    stand_in.submitted = _job("search", "failed", error=error)
    result = _run(stand_in, "search", photo)
    assert result.exit_code == 1
    assert result.stderr.strip() == "error: The photo ends too early. (image_broken)"


# search-batch, results


@pytest.fixture
def ids(tmp_path: Path) -> str:
    file = tmp_path / "ids.txt"
    file.write_bytes(b"\xef\xbb\xbfa\r\n\nb c\n")
    return str(file)


def test_items_of_a_file_are_sent_with_what_was_asked_and_their_answers_are_written(
    stand_in: StandIn, ids: str, tmp_path: Path
) -> None:
    stand_in.submitted = _job("batch_search", "queued")
    stand_in.jobs = [_batch_job()]
    options = ["-k", "3", "--group-by", "brand", "--per-group", "2", "--filter", '{"colour": "red"}']
    file = tmp_path / "answers.ndjson"
    result = _run(stand_in, "search-batch", ids, *options, "--out", str(file))
    assert result.exit_code == 0, result.output
    assert file.read_bytes() == RESULTS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.ndjson", "ids.txt"]
    terms = {"k": 3, "group_by": "brand", "per_group": 2, "filter": {"colour": "red"}}
    sent = [json.loads(line) if line else None for line in stand_in.lines.splitlines()]
    assert sent == [{**terms, "item_id": "a"}, None, {**terms, "item_id": "b c"}]
    schemas.SearchLine.model_validate(sent[0])
    assert "40 of 40 queries answered in 2.0 s (20.0/s)" in result.stderr


def test_ndjson_is_sent_as_it_is_and_takes_no_options(stand_in: StandIn, tmp_path: Path) -> None:
    file = tmp_path / "queries.ndjson"
    file.write_bytes(b'\n {"item_id": "a", "k": 4}\n{"image_url": "https://h/b.jpg"}')
    stand_in.submitted = _job("batch_search", "queued")
    stand_in.jobs = [_batch_job()]
    result = _run(stand_in, "search-batch", str(file))
    assert (result.exit_code, result.stdout_bytes) == (0, RESULTS)
    assert stand_in.lines == file.read_bytes()
    assert _run(stand_in, "search-batch", str(file), "-k", "3").exit_code == 2


def test_all_items_are_asked_for_in_one_word(stand_in: StandIn, ids: str) -> None:
    stand_in.submitted = _job("batch_search", "queued")
    assert (
        _run(stand_in, "search-batch", "--all", "--group-by", "@duplicates", "--no-wait").stdout == "batch_search-1\n"
    )
    assert stand_in.body == {"all_items": True, "group_by": "@duplicates"}
    schemas.BatchRequest.model_validate(stand_in.body)
    assert _run(stand_in, "search-batch").exit_code == 2
    assert _run(stand_in, "search-batch", ids, "--all").exit_code == 2


def test_queries_that_failed_make_the_status_3(stand_in: StandIn, ids: str) -> None:
    stand_in.submitted = _job("batch_search", "queued")
    stand_in.jobs = [_batch_job(failed=2)]
    result = _run(stand_in, "search-batch", ids)
    assert result.exit_code == 3
    assert "38 of 40 queries answered" in result.stderr


def test_results_are_fetched_later_and_watch_sums_up(stand_in: StandIn, tmp_path: Path) -> None:
    assert _run(stand_in, "results", "batch_search-1").stdout_bytes == RESULTS
    file = tmp_path / "answers.ndjson"
    assert _run(stand_in, "results", "unknown", "-o", str(file)).exit_code == 1
    assert list(tmp_path.iterdir()) == []
    stand_in.jobs = [_batch_job()]
    assert "40 of 40 queries" in _run(stand_in, "watch", "batch_search-1").stderr


# import


def test_an_import_is_uploaded_watched_and_summed_up(stand_in: StandIn, catalogue: str) -> None:
    progress = schemas.Progress(done=20, failed=0, total=40, rate_per_second=10.5, eta_seconds=2)
    stand_in.jobs = [_job("import", "running", progress=progress), _import_job(failed=0)]
    options = ["--mode", "replace", "--column", "id=sku", "--encoding", "latin-1"]
    result = _run(stand_in, "import", catalogue, *options)
    assert result.exit_code == 0, result.output
    assert result.stdout == "40 of 40 rows imported, 40 images embedded, 0 rows left out\n"


def test_what_an_import_sends_is_what_the_api_expects(stand_in: StandIn, catalogue: str) -> None:
    options = ["--mode", "replace", "--column", "id=sku", "--encoding", "latin-1", "--no-wait"]
    result = _run(stand_in, "import", catalogue, *options)
    assert result.exit_code == 0, result.output
    assert result.stdout == "import-1\n"
    assert stand_in.uploads == {"file": ("products.csv", Path(catalogue).read_bytes())}
    sent = {**stand_in.form, "columns": json.loads(stand_in.form["columns"])}
    assert schemas.ImportParameters.model_validate(sent) == schemas.ImportParameters(
        mode=schemas.ImportMode.REPLACE, columns={"id": "sku"}, encoding="latin-1"
    )


def test_a_file_on_the_server_is_named_and_not_sent(stand_in: StandIn) -> None:
    assert _run(stand_in, "import", "--server-path", "shop/p.csv", "--no-wait").exit_code == 0
    assert schemas.ImportRequest.model_validate(stand_in.body) == schemas.ImportRequest(path="shop/p.csv")


def test_rows_left_out_are_listed_and_make_the_status_3(stand_in: StandIn, catalogue: str) -> None:
    stand_in.jobs = [_import_job(failed=ROW_ERRORS)]
    result = _run(stand_in, "import", catalogue)
    assert result.exit_code == 3
    assert result.stdout.count("image_missing") == 20
    assert "5 more; --errors FILE writes all of them" in result.stderr


def test_all_rows_left_out_can_be_written_to_a_file(stand_in: StandIn, catalogue: str, tmp_path: Path) -> None:
    stand_in.jobs = [_import_job(failed=ROW_ERRORS)]
    file = tmp_path / "errors.csv"
    assert _run(stand_in, "import", catalogue, "--errors", str(file)).exit_code == 3
    lines = file.read_text().splitlines()
    assert lines[0] == "line,item_id,code,detail"
    assert lines[1] == "2,i0,image_missing,gone"
    assert len(lines) == ROW_ERRORS + 1


def test_row_errors_in_a_file_are_no_formulas_for_a_spreadsheet(
    stand_in: StandIn, catalogue: str, tmp_path: Path
) -> None:
    stand_in.jobs = [_import_job(failed=ROW_ERRORS)]
    file = tmp_path / "errors.csv"
    _run(stand_in, "import", catalogue, "--errors", str(file))
    with file.open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert [rows[0]["item_id"], rows[-1]["item_id"]] == ["i0", f"'{FORMULA}"]
    assert not [cell for row in rows for cell in row.values() if cell.startswith(tuple("=+-@\t\r\n"))]


def test_a_failed_import_ends_with_status_1_and_its_error(stand_in: StandIn, catalogue: str) -> None:
    error = schemas.JobError(code="import_columns_missing", title="t", detail="There is no column 'id'.")
    stand_in.jobs = [_job("import", "failed", error=error)]
    result = _run(stand_in, "import", catalogue)
    assert result.exit_code == 1
    assert "error: There is no column 'id'. (import_columns_missing)" in result.stderr


def test_a_server_that_restarts_meanwhile_doesn_t_end_the_watching(stand_in: StandIn, catalogue: str) -> None:
    stand_in.jobs = [
        lambda: _problem(503, "redis_unavailable", "The queue is out of reach.", **{"Retry-After": "1"}),
        _import_job(failed=0),
    ]
    assert _run(stand_in, "import", catalogue).exit_code == 0


# watch, cancel, status


def test_watch_reports_an_import_and_shows_a_search(stand_in: StandIn) -> None:
    stand_in.jobs = [_import_job(failed=0)]
    assert "40 of 40 rows" in _run(stand_in, "watch", "import-1").stdout
    stand_in.jobs = [_search_job()]
    assert "Red bag" in _run(stand_in, "watch", "search-1").stdout


def test_an_unknown_job_is_one_line(stand_in: StandIn) -> None:
    result = _run(stand_in, "watch", "unknown")
    assert result.exit_code == 1
    assert result.stderr.strip() == "error: There is no job 'unknown'. (job_not_found, HTTP 404)"


def test_cancel_says_what_became_of_the_job(stand_in: StandIn) -> None:
    assert _run(stand_in, "cancel", "import-1").stdout == "job import-1 cancelled\n"
    assert _run(stand_in, "cancel", "finished").exit_code == 1


def test_status_tells_part_by_part_and_fails_while_not_ready(stand_in: StandIn) -> None:
    warnings = {"bulk": "No worker serves the queue bulk."}
    ready = schemas.Readiness(ready=True, checks={"redis": "ok"}, warnings=warnings, search_workers=1, bulk_workers=1)
    stand_in.readiness = (ready.model_dump(), 200)
    told = _run(stand_in, "status")
    assert told.exit_code == 0
    assert "warning: No worker serves the queue bulk." in told.stdout
    broken = ready.model_copy(update={"ready": False, "checks": {"redis": "Redis does not answer."}})
    stand_in.readiness = (broken.model_dump(), 503)
    result = _run(stand_in, "status")
    assert result.exit_code == 1
    assert "redis: Redis does not answer." in result.stdout
    assert json.loads(_run(stand_in, "--json", "status").stdout) == broken.model_dump()


def test_an_absent_server_is_one_line_that_says_how_to_start_it() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but nobody listens
        result = CliRunner().invoke(
            client, ["status"], env={"LOOKALIKE_SERVER": f"http://127.0.0.1:{unused.getsockname()[1]}"}
        )
    assert result.exit_code == 1
    assert "No server answers at http://127.0.0.1:" in result.stderr
    assert "make demo" in result.stderr


def test_an_interrupted_watch_says_that_the_job_goes_on(stand_in: StandIn) -> None:
    stand_in.jobs = [_job("import", "running")]
    command = [sys.executable, "-m", "client", "--server", stand_in.url, "watch", "import-1"]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, env=os.environ) as watching:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(stand_in.asked) < 3:
            assert time.monotonic() < deadline, "the client never polled"
            time.sleep(0.02)
        watching.send_signal(signal.SIGINT)
        _, notes = watching.communicate(timeout=DEADLINE_SECONDS)
    assert watching.returncode == 130
    assert f"Job import-1 goes on. Watch it: python -m client --server {stand_in.url} watch import-1" in notes
    assert "cancel import-1" in notes
