"""Clients that search side by side, and go on whatever happens, as the API's documentation tells them to."""

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from threading import Event, Lock, Thread
from typing import Any

import requests
from urllib3.exceptions import MaxRetryError, NewConnectionError

from chaos.ledger import Ledger
from chaos.photos import photo

CLIENTS = 4
WAIT_SECONDS = 10
PATIENCE_SECONDS = 90
RETRY_STATUSES = (429, 503)

CallbackOf = Callable[[int], str | None]


class Load:
    """Searches of photos that no cache knows; each is sent again, with its idempotency key, until it is answered.

    Attributes:
        answered: searches whose job the client saw end, or was told to be gone.
        refused: answers 429 and 503.
        dropped: connections that broke after they were made.
        milliseconds: of each answered search, from its first try on.
        errors: answers that no client can do anything with, by status and code.
        silent: searches that got no end within PATIENCE_SECONDS.
        without_advice: refusals without Retry-After.
    """

    def __init__(
        self,
        base_urls: Sequence[str],
        ledger: Ledger,
        *,
        clients: int = CLIENTS,
        callback_of: CallbackOf = lambda _number: None,
        per_second: float | None = None,
        sends_keys: bool = True,
    ) -> None:
        """Args:
        base_urls: of web processes; a client that is refused a connection takes the next, as a balancer does.
        ledger: takes the jobs.
        clients: how many search at once.
        callback_of: where the job of a search is to be posted.
        per_second: searches begun in a second, at most.
        sends_keys: whether each search has an idempotency key.
        """
        self._base_urls = list(base_urls)
        self._ledger = ledger
        self._clients = clients
        self._callback_of = callback_of
        self._pause = clients / per_second if per_second else 0.0
        self._sends_keys = sends_keys
        self._numbers = count()
        self._name = uuid.uuid4().hex
        self._stop = Event()
        self._lock = Lock()
        self.answered = self.refused = self.dropped = self.silent = self.without_advice = 0
        self.milliseconds: list[float] = []
        self.errors: Counter[str] = Counter()

    @contextmanager
    def running(self) -> Iterator["Load"]:
        """Search until the block ends, and let each client finish what it has begun."""
        threads = [Thread(target=self._search_on, daemon=True) for _ in range(self._clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(PATIENCE_SECONDS + 60)

    def wait_for(self, answered: int, seconds: float) -> bool:
        """Wait until so many searches are answered in all; returns whether they are."""
        deadline = time.monotonic() + seconds
        while self.answered < answered and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.answered >= answered

    def _search_on(self) -> None:
        with requests.Session() as http:
            http.trust_env = False
            http.headers["Connection"] = "close"
            while not self._stop.is_set():
                started = time.monotonic()
                self._search(http, next(self._numbers), started)
                self._stop.wait(max(0.0, started + self._pause - time.monotonic()))

    def _search(self, http: requests.Session, number: int, started: float) -> None:
        deadline = started + PATIENCE_SECONDS
        callback = self._callback_of(number)
        request: dict[str, Any] = {
            "files": {"image": photo(f"{self._name}/{number}")},
            "data": {"callback_url": callback} if callback else {},
            "headers": {"Prefer": f"wait={WAIT_SECONDS}", "Cache-Control": "no-cache"},
        }
        if self._sends_keys:
            request["headers"]["Idempotency-Key"] = f"{self._name}-{number}"
        answer = self._answer(http, "POST", "/v1/searches", deadline, **request)
        while answer is not None and answer.status_code in (200, 202):
            job = answer.json()
            self._ledger.accept(job["id"])
            if self._ledger.saw(job):
                return self._end(started)
            path = f"/v1/jobs/{job['id']}"
            answer = self._answer(http, "GET", f"{path}?wait={WAIT_SECONDS}", deadline)
            if answer is not None and answer.status_code == 404:
                self._ledger.is_gone(job["id"])
                return self._end(started)
        with self._lock:
            if answer is None:
                self.silent += 1
            else:
                self.errors[f"{answer.status_code} {_code(answer)}"] += 1
        return None

    def _end(self, started: float) -> None:
        with self._lock:
            self.answered += 1
            self.milliseconds.append((time.monotonic() - started) * 1000)

    def _answer(
        self, http: requests.Session, method: str, path: str, deadline: float, **request: Any
    ) -> requests.Response | None:
        """Send until there is an answer that says more than "try again"; None if there is none in time."""
        number = 0
        while time.monotonic() < deadline:
            base_url = self._base_urls[number % len(self._base_urls)]
            try:
                answer = http.request(method, base_url + path, timeout=PATIENCE_SECONDS, **request)
            except requests.RequestException as error:
                number += 1
                if not _was_refused(error):
                    with self._lock:
                        self.dropped += 1
                time.sleep(0.05 if number % len(self._base_urls) else 0.2)
                continue
            if answer.status_code in RETRY_STATUSES or _code(answer) == "idempotency_key_in_use":
                advice = answer.headers.get("Retry-After", "")
                with self._lock:
                    self.refused += 1
                    self.without_advice += answer.status_code in RETRY_STATUSES and not advice.isdigit()
                time.sleep(min(1.0, float(advice)) if advice.isdigit() else 0.5)
                continue
            return answer
        return None


def _was_refused(error: requests.RequestException) -> bool:
    """Tell whether there was no connection at all."""
    cause = error.args[0] if error.args else None
    return isinstance(cause, MaxRetryError) and isinstance(cause.reason, NewConnectionError)


def _code(answer: requests.Response) -> str:
    if "json" not in answer.headers.get("Content-Type", ""):
        return ""
    body = answer.json()
    return str(body.get("code", "")) if isinstance(body, dict) else ""
