"""Webhook callbacks, delivered to a real receiver on 127.0.0.1 that checks them as Standard Webhooks says."""

import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from shared.contradictions import BACKOFF_MAX_SECONDS
from worker.fetcher import GuardedFetcher
from worker.webhooks import Attempt, backoff_seconds, deliver, job_finished_body, sign

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
JOB = {"id": "j1", "kind": "search", "status": "succeeded", "result": {"hits": [{"title": "Träger „weiß“ 👗"}]}}


class Receiver:
    """A real HTTP server that keeps what it gets and answers `status`."""

    def __init__(self) -> None:
        self.status = 204
        self.received: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.received.append((dict(self.headers), self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(receiver.status)
                self.send_header("location", "/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook?token=abc"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()
    thread.join()


@pytest.fixture
def fetcher() -> GuardedFetcher:
    return GuardedFetcher(allow_private=True, timeout_seconds=5)


def send(fetcher: GuardedFetcher, url: str, at: datetime | None = None) -> Attempt:
    moment = at or datetime.now(UTC)
    return deliver(fetcher, url, [SECRET], "msg_j1", job_finished_body(JOB, moment), moment)


def test_a_receiver_can_verify_a_delivery_and_read_the_job(receiver: Receiver, fetcher: GuardedFetcher) -> None:
    assert send(fetcher, receiver.url) == Attempt(204, None, succeeded=True, is_permanent=False)
    headers, body = receiver.received[0]
    event = Webhook(SECRET).verify(body, headers)
    assert event["type"] == "job.finished"
    assert event["data"] == JOB
    assert datetime.now(UTC) - datetime.fromisoformat(event["timestamp"]) < timedelta(minutes=1)
    assert {name.lower(): value for name, value in headers.items()}["content-type"] == "application/json"


def test_a_receiver_refuses_a_changed_body_another_id_and_another_secret(
    receiver: Receiver, fetcher: GuardedFetcher
) -> None:
    send(fetcher, receiver.url)
    headers, body = receiver.received[0]
    other_id = {name: "msg_j2" if name.lower() == "webhook-id" else value for name, value in headers.items()}
    for secret, changed_headers, changed_body in [
        (SECRET, headers, body.replace(b"succeeded", b"failed")),
        (SECRET, other_id, body),
        ("whsec_b3RoZXI=", headers, body),
    ]:
        with pytest.raises(WebhookVerificationError, match="No matching signature"):
            Webhook(secret).verify(changed_body, changed_headers)


def test_a_receiver_refuses_an_old_delivery(receiver: Receiver, fetcher: GuardedFetcher) -> None:
    send(fetcher, receiver.url, datetime.now(UTC) - timedelta(minutes=6))
    headers, body = receiver.received[0]
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(SECRET).verify(body, headers)


def test_the_signature_of_a_moment_is_the_same_in_every_time_zone() -> None:
    moment = datetime.now(UTC)
    elsewhere = moment.astimezone(timezone(timedelta(hours=5, minutes=30)))
    headers = sign([SECRET], "msg_j1", elsewhere, b"{}")
    assert headers == sign([SECRET], "msg_j1", moment, b"{}")
    assert Webhook(SECRET).verify(b"{}", headers) == {}
    assert job_finished_body(JOB, elsewhere) == job_finished_body(JOB, moment)


def test_the_signature_is_that_of_the_specification() -> None:
    # The vector of the reference libraries: github.com/standard-webhooks/standard-webhooks.
    headers = sign(
        [SECRET], "msg_p5jXN8AQM9LWM0D4loKWxJek", datetime.fromtimestamp(1614265330, UTC), b'{"test": 2432232314}'
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_while_a_secret_is_replaced_a_receiver_verifies_with_either_of_the_two() -> None:
    other = "whsec_b3RoZXIgc2VjcmV0IG9mIGVub3VnaCBieXRlcw=="
    headers = sign([SECRET, other], "msg_j1", datetime.now(UTC), b"{}")
    assert len(headers["webhook-signature"].split()) == 2
    for secret in (SECRET, other):
        assert Webhook(secret).verify(b"{}", headers) == {}
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_bmVpdGhlciBvZiB0aGVzZSB0d28=").verify(b"{}", headers)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="without a zone"):
        sign([SECRET], "msg_j1", datetime(2026, 1, 1), b"{}")  # noqa: DTZ001 - what is refused


def test_a_body_holds_json_that_any_receiver_reads() -> None:
    body = job_finished_body({"id": "j1", "title": "\ud800 é"}, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert body.isascii()
    assert json.loads(body)["timestamp"] == "2026-01-02T03:04:05+00:00"
    with pytest.raises(ValueError, match="JSON compliant"):
        job_finished_body({"score": float("nan")}, datetime.now(UTC))


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_success(receiver: Receiver, fetcher: GuardedFetcher, status: int) -> None:
    receiver.status = status
    assert send(fetcher, receiver.url) == Attempt(status, None, succeeded=True, is_permanent=False)


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 408, 429, 500, 502, 503])
def test_any_other_status_may_be_tried_again(receiver: Receiver, fetcher: GuardedFetcher, status: int) -> None:
    receiver.status = status
    attempt = send(fetcher, receiver.url)
    assert attempt == Attempt(status, f"The receiver answered {status}.", succeeded=False, is_permanent=False)
    assert len(receiver.received) == 1


def test_410_gone_is_permanent(receiver: Receiver, fetcher: GuardedFetcher) -> None:
    receiver.status = 410
    attempt = send(fetcher, receiver.url)
    assert (attempt.status, attempt.succeeded, attempt.is_permanent) == (410, False, True)


def test_no_answer_may_be_tried_again_and_is_told_without_the_query(fetcher: GuardedFetcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    attempt = send(fetcher, f"http://127.0.0.1:{port}/hook?token=abc")
    assert (attempt.status, attempt.succeeded, attempt.is_permanent) == (None, False, False)
    assert attempt.error is not None
    assert str(port) in attempt.error
    assert "abc" not in attempt.error


def test_a_refused_url_is_permanent_and_gets_nothing(receiver: Receiver) -> None:
    attempt = send(GuardedFetcher(allow_private=False, timeout_seconds=5), receiver.url)
    assert (attempt.status, attempt.succeeded, attempt.is_permanent) == (None, False, True)
    assert receiver.received == []


attempts = st.integers(min_value=1, max_value=100_000)
bases = st.floats(min_value=0.001, max_value=1e6)


@given(attempts, bases, st.randoms(use_true_random=False))
def test_the_wait_lies_in_the_upper_half_of_its_window(attempt: int, base: float, random: Random) -> None:
    # Doubled step by step, as an oracle that shares no formula with the code.
    window = base
    for _ in range(attempt - 1):
        if window >= BACKOFF_MAX_SECONDS:
            break
        window *= 2
    window = min(window, BACKOFF_MAX_SECONDS)
    assert window / 2 <= backoff_seconds(attempt, base, random) <= window <= 3600


class Latest(Random):
    """Draws the latest moment always."""

    def uniform(self, a: float, b: float) -> float:
        """Return b."""
        return b


@given(attempts, bases)
def test_the_longest_wait_never_shrinks_from_try_to_try(attempt: int, base: float) -> None:
    assert backoff_seconds(attempt, base, Latest()) <= backoff_seconds(attempt + 1, base, Latest())


def test_the_longest_wait_doubles_up_to_an_hour() -> None:
    waits = [backoff_seconds(attempt, 5, Latest()) for attempt in range(1, 13)]
    assert waits == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]


def test_callbacks_that_failed_together_come_back_apart() -> None:
    random = Random(7)
    waits = [backoff_seconds(4, 5, random) for _ in range(2000)]
    assert 20 <= min(waits) < 20.5
    assert 39.5 < max(waits) <= 40
    assert sum(waits) / len(waits) == pytest.approx(30, abs=0.5)


@pytest.mark.parametrize(("attempt", "base"), [(0, 5.0), (-1, 5.0), (1, 0.0), (1, -1.0)])
def test_a_wait_before_any_try_or_without_base_is_refused(attempt: int, base: float) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        backoff_seconds(attempt, base, Random(0))
