"""Images and requests that no sane client sends."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import ceil
from typing import Any, TypeVar

import requests
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from chaos.experiment import Experiment
from chaos.photos import photo
from chaos.trial import Trial
from chaos.usage import resident_mib

T = TypeVar("T")

SEED = 6
CLIENTS = 8
HANG_SECONDS = 20
SCHEMA_SECONDS = 900
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "TIFF", "PPM")
# Work that a random body may well ask for in earnest: building a release.
LEFT_OUT = "^/v1/releases$"
OUR_FAULT = ("internal", "worker_lost")
MEMORY_GROWTH_MIB = 32


@cache
def _originals() -> list[bytes]:
    return [photo("mutated", kind) for kind in FORMATS]


@st.composite
def mutated_images(draw: st.DrawFn) -> bytes:
    """Draw a file that began as an image."""
    data = bytearray(draw(st.sampled_from(_originals())))
    places = st.integers(0, len(data) - 1)
    for place, value in draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=12)):
        data[place] = value
    if draw(st.booleans()):
        place = draw(places)
        data[place:place] = draw(st.binary(max_size=64))
    if draw(st.booleans()):
        del data[draw(places) :]
    return bytes(data)


def run(trial: Trial) -> None:
    """Send all of it, some at a time."""
    system, scale = trial.system, trial.scale
    groups = {name: system.group.pid(name) for name in ("web", "search", "bulk")}
    images = generated(mutated_images(), scale.mutated)
    before, errors, requests_sent = {}, [], 0
    for _ in range(2):  # memory counts from the second time on: allocators then have seen all sizes, workers all kinds
        before = resident_mib(groups)
        trial.say(f"{len(images)} mutated images")
        errors += _send_all(images, lambda image: _search(trial, image))
        trial.say("requests by the API's own description")
        sent, wrong = _requests_by_schema(trial, scale.mutated)
        requests_sent += sent
        errors += wrong
    for job_id in trial.ledger.lost:
        trial.finished(job_id, HANG_SECONDS)
    errors += [f"a job failed with {code}" for code in OUR_FAULT for _ in range(trial.ledger.failed[code])]
    growth = {name: mib - before[name] for name, mib in resident_mib(groups).items()}
    for error in errors[:10]:
        trial.record.broken.append(error)
    for name, mib in growth.items():
        trial.require(mib < MEMORY_GROWTH_MIB, f"{name} grew by {mib:.0f} MiB")
    trial.record.figures |= {
        "images": 2 * len(images),
        "requests": requests_sent,
        "server_errors_from_bad_input": len(errors),
        **{f"{name}_growth_mib": round(mib, 1) for name, mib in growth.items()},
    }
    trial.recovery("bad input")


def generated(strategy: st.SearchStrategy[T], number: int) -> list[T]:
    """Return so many examples of a strategy, the same ones each time."""
    found: list[T] = []

    @seed(SEED)
    @settings(
        max_examples=number,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(example: T) -> None:
        found.append(example)

    collect()
    return found


def _requests_by_schema(trial: Trial, number: int) -> tuple[int, list[str]]:
    """Let Schemathesis send what the API's own description allows, and what it forbids, to every operation.

    Returns:
        How many requests were sent, and what was wrong with their answers.
    """
    report = trial.system.folder / "requests.json"
    operations = sum(len(methods) for methods in trial.system.get("/openapi.json").json()["paths"].values())
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{trial.system.base_url}/openapi.json"]
    command += ["--checks", "not_a_server_error", "--max-response-time", str(HANG_SECONDS), "--seed", str(SEED)]
    command += ["--phases", "coverage,fuzzing", "--mode", "all", "--max-examples", str(ceil(number / operations))]
    # With several workers Python 3.11 fails now and then: "AST constructor recursion depth mismatch".
    command += ["--workers", "1", "--exclude-path-regex", LEFT_OUT, "--continue-on-failure", "--no-shrink"]
    command += ["--suppress-health-check", "all", "--report", "json", "--report-json-path", str(report)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=trial.system.folder, timeout=SCHEMA_SECONDS, check=False
    )
    report.with_suffix(".txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    if not report.exists():
        raise RuntimeError(f"Schemathesis ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    told = json.loads(report.read_text(encoding="utf-8"))
    wrong = [f"{failure['title']}: {', '.join(failure['operations'])}" for failure in told["failures"]]
    return told["test_cases"]["generated"], wrong + [f"Schemathesis: {error}" for error in told["errors"]]


def _search(trial: Trial, image: bytes) -> str:
    headers = {"Prefer": f"wait={HANG_SECONDS}", "Cache-Control": "no-cache"}
    options = {"files": {"image": ("photo", image)}, "headers": headers}
    return _answered(trial, "a mutated image", "POST", "/v1/searches", options)


def _answered(trial: Trial, what: str, method: str, path: str, options: dict[str, Any]) -> str:
    """Send a request; returns what is wrong with the answer, in words, or nothing."""
    started = time.monotonic()
    try:
        answer = trial.system.request(method, path, **options)
    except requests.RequestException as error:
        return f"{what[:500]}: {error!r}"
    if answer.status_code >= 500:
        return f"{what[:500]}: {answer.status_code} {answer.text[:200]}"
    if answer.status_code in (200, 202) and method in ("POST", "PUT") and "kind" in (body := answer.json()):
        trial.ledger.accept(body["id"])
        trial.ledger.saw(body)
    elapsed = time.monotonic() - started
    return f"{what[:500]}: answered after {elapsed:.1f} s" if elapsed > HANG_SECONDS else ""


def _send_all(examples: Sequence[T], send: Callable[[T], str]) -> list[str]:
    with ThreadPoolExecutor(CLIENTS) as pool:
        return [wrong for wrong in pool.map(send, examples) if wrong]


EXPERIMENT = Experiment(
    "mutated-input",
    "1,000 mutated images (Hypothesis) and over 1,000 requests to all documented operations, right and wrong ones "
    "(Schemathesis); then all of it again (quick: 100 images).",
    "No answer of 500 and more, no job that fails by our fault, no hang, no growth of memory from the second time on.",
    run,
)
