"""Traces of the Procfile's processes, as a real collector gets them over HTTP."""

import gzip
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from demo.ports import free_port
from demo.processes import ProcessGroup
from tests.e2e.pictures import picture
from tests.servers import RedisProcess
from tests.stack import ROOT, Stack, wait_until

CLIENTS_TRACE, CLIENTS_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STEPS = ["refresh", "decode", "embed", "batch", "search"]  # an empty catalogue gives no hits


class Collected(NamedTuple):
    """A span, and the tier that sent it."""

    service: str
    span: Span


class Collector:
    """Takes OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Collected] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            names = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [Collected(names["service.name"], span) for span in scope.spans]

    def trace(self, trace_id: str) -> list[Collected]:
        return [found for found in self.spans if found.span.trace_id.hex() == trace_id]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, own_redis: RedisProcess, collector: Collector) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("traces")
    environment = {
        "DATABASE_URL": f"sqlite:///{folder}/lookalike.sqlite3",
        "LOOKALIKE_STORE_URL": str(folder / "store"),
        "LOOKALIKE_TRACES_URL": collector.url,
    }
    processes = ["web", "search", "bulk"]
    with ProcessGroup(
        ROOT, folder / "state", environment=environment, processes=processes, redis_url=own_redis.url
    ) as group:
        yield Stack(group)


def attributes(span: Span) -> dict[str, str | int]:
    return {item.key: item.value.string_value or item.value.int_value for item in span.attributes}


def test_a_search_is_one_trace_from_the_clients_span_to_the_steps_in_the_worker(
    stack: Stack, collector: Collector
) -> None:
    headers = {"Prefer": "wait=20", "traceparent": f"00-{CLIENTS_TRACE}-{CLIENTS_SPAN}-01"}
    job = stack.post(
        "/v1/searches", files={"image": picture("shoe")}, headers={**headers, "Cache-Control": "no-cache"}
    ).json()
    assert job["status"] == "succeeded", job
    wait_until(lambda: len(collector.trace(CLIENTS_TRACE)) == 2 + len(STEPS), 20, "all spans have come")
    request, done, *steps = sorted(
        collector.trace(CLIENTS_TRACE), key=lambda found: (found.span.name in STEPS, found.span.start_time_unix_nano)
    )

    assert (request.service, request.span.name, request.span.kind) == (
        "lookalike-web",
        "POST /v1/searches",
        Span.SpanKind.SPAN_KIND_SERVER,
    )
    assert request.span.parent_span_id.hex() == CLIENTS_SPAN
    assert attributes(request.span)["http.response.status_code"] == 200
    assert (done.service, done.span.name) == ("lookalike-worker", "job search")
    assert done.span.parent_span_id == request.span.span_id
    assert attributes(done.span)["lookalike.job_id"] == job["id"]
    assert [step.span.name for step in steps] == STEPS
    timings = job["result"]["timings_ms"]
    for step in steps:
        assert step.span.parent_span_id == done.span.span_id
        nanoseconds = step.span.end_time_unix_nano - step.span.start_time_unix_nano
        assert nanoseconds == pytest.approx(timings[step.span.name] * 1e6, abs=1)
    assert request.span.start_time_unix_nano < done.span.start_time_unix_nano
    assert done.span.start_time_unix_nano < request.span.end_time_unix_nano, "the client waited for it"


def test_a_search_of_a_client_without_a_trace_has_one_of_its_own_and_a_failure_is_marked(
    stack: Stack, collector: Collector
) -> None:
    photo = picture("hat")
    job = stack.search(photo[: len(photo) // 2], fresh=True)
    assert job["error"]["code"] == "image_broken"

    def of_job() -> list[Collected]:
        return [found for found in collector.spans if attributes(found.span).get("lookalike.job_id") == job["id"]]

    wait_until(lambda: len(of_job()) == 1, 20, "the job's span")
    (done,) = of_job()
    assert (done.span.status.code, done.span.status.message) == (Status.STATUS_CODE_ERROR, "image_broken")
    trace_id = done.span.trace_id.hex()
    assert trace_id != CLIENTS_TRACE
    wait_until(lambda: len(collector.trace(trace_id)) == 2, 20, "the request's span")
    (request,) = (found for found in collector.trace(trace_id) if found.service == "lookalike-web")
    assert request.span.parent_span_id == b""
    assert done.span.parent_span_id == request.span.span_id


def test_a_job_of_a_bulk_worker_is_part_of_its_requests_trace_too(stack: Stack, collector: Collector) -> None:
    trace_id = CLIENTS_TRACE[::-1]
    headers = {"traceparent": f"00-{trace_id}-{CLIENTS_SPAN}-01"}
    file = ("catalogue.csv", b"id,image\na,missing.png\n")
    job = stack.post("/v1/imports", files={"file": file}, headers=headers).json()
    assert stack.finished(job["id"])["status"] == "succeeded"
    wait_until(
        lambda: {found.span.name for found in collector.trace(trace_id)} >= {"POST /v1/imports", "job import"},
        20,
        "the import's spans",
    )


def test_what_machines_ask_every_few_seconds_is_not_traced(stack: Stack, collector: Collector) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/v1/items"):
        stack.get(path)
    wait_until(lambda: any(found.span.name == "GET /v1/items" for found in collector.spans), 20, "the last span")
    assert not {"GET /healthz", "GET /readyz", "GET /metrics"} & {found.span.name for found in collector.spans}


def python(script: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    fixed = {"DATABASE_URL": f"sqlite:///{folder}/x.sqlite3", "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, **fixed, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )


STARTS = {"web": "from web.app import create_app; create_app()", "worker": "import worker.app"}


@pytest.mark.parametrize("tier", STARTS)
@pytest.mark.parametrize("setting", ["", "http://127.0.0.1:4318/v1/traces"], ids=["unset", "set"])
def test_spans_and_their_exporter_are_imported_with_the_setting_only(tier: str, setting: str, tmp_path: Path) -> None:
    # redis-py imports the SDK by itself, for metrics, wherever it is installed.
    script = f"{STARTS[tier]}\nimport sys\nprint({{'shared.traces', 'opentelemetry.exporter'}} & sys.modules.keys())"
    done = python(script, tmp_path, LOOKALIKE_TRACES_URL=setting)
    assert (done.stdout.strip() != "set()") is bool(setting), done.stderr


@pytest.mark.parametrize("tier", STARTS)
def test_a_setting_without_its_packages_stops_the_start_and_names_the_remedy(tier: str, tmp_path: Path) -> None:
    script = f"import sys\nsys.modules['opentelemetry.sdk'] = None  # as if it were not installed\n{STARTS[tier]}"
    done = python(script, tmp_path, LOOKALIKE_TRACES_URL="http://127.0.0.1:4318/v1/traces")
    assert done.returncode == 1
    assert "pip install --requirement requirements-traces.txt" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_collector_that_is_away_fails_no_request(tmp_path: Path) -> None:
    script = "from web.app import create_app\nassert create_app().test_client().get('/').status_code == 200"
    done = python(script, tmp_path, LOOKALIKE_TRACES_URL=f"http://127.0.0.1:{free_port()}/v1/traces")
    assert done.returncode == 0, done.stderr
