"""The web process as gunicorn runs it, with no worker at all: clients that wait, and bodies that nobody wants."""

import http.client
import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import pytest
import requests

from demo.processes import ProcessGroup
from tests.e2e.pictures import picture
from tests.e2e.steps import assert_problem
from tests.stack import ROOT, Stack, wait_until

MIB = 1024 * 1024
WEB_THREADS = 4
PLACES_TO_WAIT = 3
# Beyond what the sockets hold: a client that sends it all is still sending when it is refused.
FAR_TOO_LARGE = b"\xff\xd8\xff" + bytes(60 * MIB)
BOUNDARY = "boundary"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("web")
    environment = {
        "DATABASE_URL": f"sqlite:///{folder}/lookalike.sqlite3",
        "LOOKALIKE_STORE_URL": str(folder / "store"),
        "LOOKALIKE_WEB_THREADS": str(WEB_THREADS),
        "LOOKALIKE_UPLOAD_MAX_BYTES": str(MIB),
        "LOOKALIKE_IMPORT_MAX_BYTES": str(20 * MIB),
    }
    with ProcessGroup(ROOT, folder / "state", environment=environment, processes=["web"]) as group:
        yield Stack(group)


def form_of(field: str, file: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="a.jpg"\r\n\r\n'
    return head.encode() + file + f"\r\n--{BOUNDARY}--\r\n".encode()


def test_clients_that_wait_never_keep_all_others_out(web: Stack) -> None:
    job_id = web.post("/v1/searches", files={"image": picture("a")}).json()["id"]
    with ThreadPoolExecutor(WEB_THREADS * 2) as pool:
        reading = [pool.submit(web.get, f"/v1/jobs/{job_id}?wait=29") for _ in range(WEB_THREADS * 2)]
        wait_until(
            lambda: sum(answer.done() for answer in reading) == len(reading) - PLACES_TO_WAIT,
            10,
            "the rest is answered",
        )
        try:
            assert requests.get(f"{web.base_url}/healthz", timeout=1).ok
            assert requests.get(f"{web.base_url}/", timeout=1).ok
            headers = {"Prefer": "wait=29"}
            answer = requests.post(
                f"{web.base_url}/v1/searches", files={"image": picture("b")}, headers=headers, timeout=5
            )
            assert (answer.status_code, answer.json()["status"]) == (202, "queued")
            assert int(answer.headers["Retry-After"]) >= 1
            assert "Preference-Applied" not in answer.headers
            assert sum(not answer.done() for answer in reading) == PLACES_TO_WAIT
        finally:
            web.delete(f"/v1/jobs/{job_id}")
        statuses = [answer.result().json()["status"] for answer in reading]
    assert sorted(statuses) == ["cancelled"] * PLACES_TO_WAIT + ["queued"] * (len(reading) - PLACES_TO_WAIT)


def test_a_place_to_wait_is_free_again_after_each_wait(web: Stack) -> None:
    job_id = web.post("/v1/searches", files={"image": picture("a")}).json()["id"]
    for _ in range(PLACES_TO_WAIT + 1):
        assert web.get(f"/v1/jobs/{job_id}?wait=1").elapsed.total_seconds() > 0.9
        assert web.get("/v1/jobs/unknown?wait=1").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "field", "code"),
    [
        ("POST", "/v1/searches", "image", "image_too_large"),
        ("PUT", "/v1/items/a", "image", "image_too_large"),
        ("POST", "/v1/imports", "file", "import_too_large"),
    ],
)
def test_a_client_that_sends_all_before_it_reads_still_sees_why_its_file_was_refused(
    web: Stack, method: str, path: str, field: str, code: str
) -> None:
    form = form_of(field, FAR_TOO_LARGE)
    whole = {"Content-Length": str(len(form))}
    in_chunks = {"Transfer-Encoding": "chunked"}
    # It knows nothing of answers that come early: a connection that breaks while it sends is an error.
    connection = http.client.HTTPConnection(urlsplit(web.base_url).netloc, timeout=30)
    for headers in (whole, in_chunks, whole):
        headers["Content-Type"] = f"multipart/form-data; boundary={BOUNDARY}"
        parts = (form[start : start + MIB] for start in range(0, len(form), MIB))
        connection.request(method, path, parts, headers, encode_chunked=headers is in_chunks)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (413, code)
    connection.close()


def test_a_body_of_the_wrong_kind_is_refused_with_a_reason_however_large(web: Stack) -> None:
    problem = assert_problem(web.post("/v1/searches", data=FAR_TOO_LARGE), 422, "invalid_parameter")
    assert "multipart" in problem["detail"]
    headers = {"Content-Type": "application/json"}
    assert_problem(web.post("/v1/searches", data=FAR_TOO_LARGE, headers=headers), 413, "request_too_large")
    assert_problem(web.post("/nowhere", data=FAR_TOO_LARGE), 404, "route_not_found")


def test_a_text_field_that_is_too_large_is_not_called_a_large_photo(web: Stack) -> None:
    form = {"filter": "x" * (MIB + 1)}
    assert_problem(web.post("/v1/searches", files={"image": b"x"}, data=form), 413, "request_too_large")


def test_a_client_that_stops_in_the_middle_of_its_body_loses_its_thread(web: Stack) -> None:
    host = urlsplit(web.base_url)
    head = (
        f"POST /v1/searches HTTP/1.1\r\nHost: {host.netloc}\r\nContent-Length: 1000\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n--{BOUNDARY}\r\n"
    )
    stalled = [socket.create_connection((host.hostname, host.port), timeout=60) for _ in range(WEB_THREADS)]
    for connection in stalled:
        connection.sendall(head.encode())
    for connection in stalled:
        with connection:
            assert b" 400 " in connection.makefile("rb").readline()
    assert requests.get(f"{web.base_url}/healthz", timeout=1).ok


def test_clients_that_do_not_end_their_head_lose_their_threads_and_no_other_client_does(web: Stack) -> None:
    host = urlsplit(web.base_url)
    patient = http.client.HTTPConnection(host.netloc, timeout=60)

    def status_for_patient() -> int:
        patient.request("GET", "/healthz")
        answer = patient.getresponse()
        answer.read()
        return answer.status

    with closing(patient), ExitStack() as held, ThreadPoolExecutor(1) as other:
        assert status_for_patient() == 200
        dripping = set()
        for _ in range(WEB_THREADS):
            connection = socket.create_connection((host.hostname, host.port), timeout=0.05)
            dripping.add(held.enter_context(connection))
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: ")
        served = other.submit(requests.get, f"{web.base_url}/healthz", timeout=60)

        def all_are_cut_off() -> bool:
            for connection in list(dripping):
                try:
                    connection.sendall(b"a")
                    is_over = connection.recv(100) == b""
                except TimeoutError:
                    continue
                except ConnectionError:
                    is_over = True
                if is_over:
                    dripping.remove(connection)
            return not dripping

        wait_until(all_are_cut_off, 25, "the dripping clients are cut off")
        assert served.result().ok
        assert status_for_patient() == 200, "a kept connection stays, however long it was silent between requests"


def test_web_serves_others_while_clients_that_it_cut_off_stay_connected(web: Stack) -> None:
    host = urlsplit(web.base_url)
    with ExitStack() as held:
        stubborn = [
            held.enter_context(socket.create_connection((host.hostname, host.port), timeout=30))
            for _ in range(3 * WEB_THREADS)
        ]
        for connection in stubborn:
            connection.sendall(b"no request\r\n\r\n")
        for connection in stubborn:
            assert connection.makefile("rb").readline().startswith(b"HTTP/1.1 400")
        # Each of them is lingered over for 2 s; one after the other that would be 24.
        assert requests.get(f"{web.base_url}/healthz", timeout=10).ok


@pytest.mark.parametrize("framing", ["Content-Length: 100000\r\n", "Transfer-Encoding: chunked\r\n"])
def test_a_body_that_comes_by_the_byte_is_given_up_and_a_slow_one_is_not(web: Stack, framing: str) -> None:
    host = urlsplit(web.base_url)
    head = f"POST /v1/searches HTTP/1.1\r\nHost: {host.netloc}\r\nContent-Type: application/json\r\n{framing}\r\n"
    sizes = {"drips": 1, "slow": 3000}
    answers: dict[str, bytes] = {}
    with ExitStack() as held:
        connections = {}
        for name in sizes:
            connections[name] = held.enter_context(socket.create_connection((host.hostname, host.port), timeout=0.5))
            connections[name].sendall(head.encode())

        def send_on() -> bool:
            for name, size in sizes.items():
                if name in answers:
                    continue
                part = b" " * size
                connections[name].sendall(part if "Length" in framing else b"%x\r\n%s\r\n" % (size, part))
                with suppress(TimeoutError):
                    answers[name] = connections[name].recv(100)
            return "drips" in answers

        wait_until(send_on, 30, "the one that drips is given up")
    assert b" 400 " in answers["drips"]
    assert "slow" not in answers


def test_methods_that_clients_invent_are_not_kept_as_labels(web: Stack) -> None:
    for method in ("BREW", "WHEN"):
        assert requests.request(method, f"{web.base_url}/healthz", timeout=5).status_code == 405
    metrics = web.get("/metrics").text
    assert "BREW" not in metrics
    assert "WHEN" not in metrics
    assert 'method="other"' in metrics


def test_kept_connections_that_are_more_than_the_threads_are_all_served_again_and_again(web: Stack) -> None:
    host = urlsplit(web.base_url).netloc
    connections = [http.client.HTTPConnection(host, timeout=10) for _ in range(WEB_THREADS * 3)]
    for _ in range(3):
        for connection in connections:
            connection.request("GET", "/healthz")
        for connection in connections:
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())) == (200, {"status": "ok"})
            assert not answer.will_close
    for connection in connections:
        connection.close()


def read_status(answers: BinaryIO) -> int:
    """Read one answer of a connection to its end, and return its status."""
    status = int(answers.readline().split()[1])
    headers = http.client.parse_headers(answers)
    assert answers.read(int(headers["Content-Length"]))
    return status


def test_requests_that_come_together_on_one_connection_are_answered_in_their_order(web: Stack) -> None:
    host = urlsplit(web.base_url)
    paths = ["/healthz", "/nowhere", "/v1/jobs/unknown", "/healthz"]
    request = "".join(f"GET {path} HTTP/1.1\r\nHost: {host.netloc}\r\n\r\n" for path in paths)
    with (
        socket.create_connection((host.hostname, host.port), timeout=10) as connection,
        connection.makefile("rb") as answers,
    ):
        for _ in range(2):
            connection.sendall(request.encode())
            assert [read_status(answers) for _ in paths] == [200, 404, 404, 200]


def test_bug_connections_that_said_nothing_held_all_threads(web: Stack) -> None:
    host = urlsplit(web.base_url)
    with ExitStack() as idle:
        for _ in range(WEB_THREADS * 3):
            idle.enter_context(socket.create_connection((host.hostname, host.port), timeout=5))
        assert requests.get(f"{web.base_url}/healthz", timeout=3).ok
        late = idle.enter_context(socket.create_connection((host.hostname, host.port), timeout=5))
        assert requests.get(f"{web.base_url}/healthz", timeout=3).ok
        late.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert b"200" in late.recv(100), "one that speaks after all is served"


def test_bug_who_connected_while_web_was_stopping_was_cut_off_in_the_end(tmp_path: Path) -> None:
    environment = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/lookalike.sqlite3",
        "LOOKALIKE_STORE_URL": str(tmp_path / "store"),
    }
    with ProcessGroup(ROOT, tmp_path / "state", environment=environment, processes=["web"]) as group:
        stopping, host = Stack(group), urlsplit(group.base_url)
        job_id = stopping.post("/v1/searches", files={"image": picture("a")}).json()["id"]
        waiting = http.client.HTTPConnection(host.netloc, timeout=20)
        waiting.request("GET", f"/v1/jobs/{job_id}?wait=8")
        group.kill("web", signal.SIGTERM)

        def is_refused() -> bool:
            try:
                with socket.create_connection((host.hostname, host.port), timeout=5) as connection:
                    connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                    assert b"200" in connection.recv(100), "who got in is served"
            except ConnectionRefusedError:
                return True
            return False

        wait_until(is_refused, 6, "the door is shut")
        assert group.is_running("web"), "it goes on for the client that waits"
        answer = waiting.getresponse()
        assert (answer.status, json.loads(answer.read())["status"]) == (200, "queued")
        waiting.close()
