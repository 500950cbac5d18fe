"""The load generator: one asyncio process that reads a LoadPlan as JSON and writes windows of figures as JSON.

    python -m benchmarks.serving.load < plan.json

Each client sends its next photo as soon as its last one is answered. Answers are parsed after the last window, so that
parsing takes no CPU time from the servers.
"""

import asyncio
import base64
import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.serving.http import Answer, Connection
from benchmarks.serving.processes import ROOT, cpu_seconds, environment
from benchmarks.serving.statistics import latencies

HOST = "127.0.0.1"
BOUNDARY = b"lookalike-benchmark-3f1c"
WAIT = "wait=30"
SLOWEST = 20  # one of so many: the slowest 5 %


@dataclass(frozen=True)
class LoadPlan:
    """What to send, and how long.

    Attributes:
        port: of the server, on 127.0.0.1.
        path: of the endpoint.
        photos: files to send, one after the other, all clients from the same list.
        clients: how many send at once.
        warmup_seconds: sent before the first window.
        seconds: length of a window; 0: one window that ends when each photo was sent once.
        repetitions: windows, one after the other without a pause.
        format: how a photo is sent: as a file of a form, or in base64 in JSON.
        fields: sent along with each photo.
        headers: sent along with each request.
        groups: process groups whose CPU time is measured, by name.
        keep_answers: whether the hits of each photo's last answer are returned.
    """

    port: int
    path: str
    photos: list[str]
    clients: int
    warmup_seconds: float = 0.0
    seconds: float = 0.0
    repetitions: int = 1
    format: Literal["multipart", "json"] = "multipart"
    fields: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    keep_answers: bool = False


@dataclass(frozen=True)
class Done:
    """One answered request."""

    photo: int
    at: float
    milliseconds: float
    answer: Answer
    polls: int


class LoadFailed(RuntimeError):
    """A server answered with an error, or not at all; the message holds the answer."""


def run_load(plan: LoadPlan) -> dict[str, Any]:
    """Run a plan in a process of its own.

    Returns:
        windows: one mapping per repetition: rate per second, searches, p50, p95, p99 and mean in milliseconds,
        polls, cpu_share of the load generator (1.0 is one core), cpu_ms of each group per search, answered_from counts
        and step_ms means where the answers tell them, and slowest: mean and step_ms of the slowest 5 %.
        answers: item ids by photo, if wanted.

    Raises:
        LoadFailed: if a request failed.
    """
    limit = plan.warmup_seconds + plan.seconds * plan.repetitions + 240
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving.load"],
        input=json.dumps(asdict(plan)),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        timeout=limit,
        check=False,
    )
    if done.returncode != 0:
        raise LoadFailed(f"{plan.path} with {plan.clients} clients: {done.stderr.strip()[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def build_request(plan: LoadPlan, photo: bytes) -> bytes:
    """Return a whole HTTP request that sends a photo."""
    if plan.format == "json":
        body = json.dumps({"image": base64.b64encode(photo).decode(), **plan.fields}).encode()
        content_type = b"application/json"
    else:
        parts = [
            b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
            % (BOUNDARY, name.encode(), value.encode())
            for name, value in plan.fields.items()
        ]
        parts.append(
            b'--%b\r\nContent-Disposition: form-data; name="image"; filename="photo.jpg"\r\n'
            b"Content-Type: image/jpeg\r\n\r\n%b\r\n--%b--\r\n" % (BOUNDARY, photo, BOUNDARY)
        )
        body, content_type = b"".join(parts), b"multipart/form-data; boundary=" + BOUNDARY
    extra = {"Content-Type": content_type.decode(), "Content-Length": str(len(body)), **plan.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in extra.items())
    return f"POST {plan.path} HTTP/1.1\r\nHost: {HOST}:{plan.port}\r\n{lines}\r\n".encode() + body


class Generator:
    """Runs one plan."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._requests = [build_request(plan, Path(photo).read_bytes()) for photo in plan.photos]
        self._sent = 0
        self.done: list[Done] = []

    async def client(self, is_over: Callable[[], bool]) -> None:
        """Send photos until it is over."""
        connection = await Connection.open(HOST, self._plan.port)
        while not is_over():
            photo = self._sent % len(self._requests)
            self._sent += 1
            start = time.perf_counter()
            if not connection.is_open:
                connection = await Connection.open(HOST, self._plan.port)
            answer, polls = await connection.request(self._requests[photo]), 0
            while answer.status == 202:  # Lookalike works on it still: go on waiting, as its clients do
                answer, polls = await self._poll(connection, answer), polls + 1
            now = time.perf_counter()
            if answer.status != 200:
                raise LoadFailed(f"status {answer.status}: {answer.body[:500]!r}")
            self.done.append(Done(photo, now, (now - start) * 1000, answer, polls))
        connection.close()

    async def _poll(self, connection: Connection, answer: Answer) -> Answer:
        path = answer.headers[b"location"].decode()
        waiting = f"GET {path}?{WAIT} HTTP/1.1\r\nHost: {HOST}:{self._plan.port}\r\n\r\n"
        polled = await connection.request(waiting.encode())
        is_done = polled.status != 200 or json.loads(polled.body)["status"] not in ("queued", "running")
        return polled if is_done else Answer(202, answer.headers, polled.body)

    async def run(self) -> list[dict[str, Any]]:
        """Return the figures of each window."""
        plan = self._plan
        begin = time.perf_counter()
        if plan.seconds:
            end = begin + plan.warmup_seconds + plan.seconds * plan.repetitions
            clients = [
                asyncio.create_task(self.client(lambda: time.perf_counter() >= end)) for _ in range(plan.clients)
            ]
        else:
            clients = [asyncio.create_task(self.client(self._is_all_sent)) for _ in range(plan.clients)]
        marks = [] if plan.seconds and plan.warmup_seconds else [self._mark()]
        if plan.seconds:
            for number in range(0 if not marks else 1, plan.repetitions + 1):
                wake = begin + plan.warmup_seconds + plan.seconds * number
                await asyncio.wait(clients, timeout=wake - time.perf_counter(), return_when=asyncio.FIRST_EXCEPTION)
                marks.append(self._mark())
        await asyncio.gather(*clients)
        if not plan.seconds:
            marks.append(self._mark())
        return [self._window(*pair) for pair in itertools.pairwise(marks)]

    def _is_all_sent(self) -> bool:
        return self._sent >= len(self._requests)

    def _mark(self) -> tuple[float, float, dict[str, float]]:
        return time.perf_counter(), time.process_time(), cpu_seconds(self._plan.groups)

    def _window(
        self, start: tuple[float, float, dict[str, float]], stop: tuple[float, float, dict[str, float]]
    ) -> dict[str, Any]:
        inside = [done for done in self.done if start[0] <= done.at < stop[0]]
        elapsed, searches = stop[0] - start[0], max(1, len(inside))
        results = [_result(done.answer) for done in inside]
        slowest = sorted(inside, key=lambda done: done.milliseconds)[-max(1, len(inside) // SLOWEST) :]
        origins = Counter(result["answered_from"] for result in results if "answered_from" in result)
        return {
            "rate": len(inside) / elapsed,
            "searches": len(inside),
            **latencies([done.milliseconds for done in inside]),
            "polls": sum(done.polls for done in inside),
            "cpu_share": (stop[1] - start[1]) / elapsed,
            "cpu_ms": {name: (stop[2][name] - used) * 1000 / searches for name, used in start[2].items()},
            "answered_from": dict(origins),
            "step_ms": _mean_steps(results),
            "slowest": {
                "mean": sum(done.milliseconds for done in slowest) / max(1, len(slowest)),
                "step_ms": _mean_steps([_result(done.answer) for done in slowest]),
            },
        }

    def answers(self) -> dict[str, list[str]]:
        """Return the item ids of each photo's last answer."""
        return {self._plan.photos[done.photo]: hit_ids(_result(done.answer)) for done in self.done}


def _result(answer: Answer) -> dict[str, Any]:
    body = json.loads(answer.body)
    result: dict[str, Any] | None = body.get("result", body)
    if result is None or "hits" not in result:
        raise LoadFailed(f"an answer without hits: {answer.body[:500]!r}")
    return result


def _mean_steps(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    steps: Counter[str] = Counter()
    for result in results:
        steps.update(result.get("timings_ms", {}))
    return {name: total / len(results) for name, total in steps.items()}


def hit_ids(result: Mapping[str, Any]) -> list[str]:
    """Return the ids of the items in an answer, best first."""
    return [hit["item_id"] for hit in result["hits"]]


def main() -> None:
    """Read a plan from stdin, write its figures to stdout."""
    plan = LoadPlan(**json.load(sys.stdin))
    generator = Generator(plan)
    windows = asyncio.run(generator.run())
    json.dump({"windows": windows, "answers": generator.answers() if plan.keep_answers else {}}, sys.stdout)


if __name__ == "__main__":
    main()
