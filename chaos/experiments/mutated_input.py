"""Images and requests that no sane client sends."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

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
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "TIFF", "PPM")
# Work that a random body may well ask for in earnest: building a release.
LEFT_OUT = ("/v1/releases",)
OUR_FAULT = ("internal", "worker_lost")
MEMORY_GROWTH_MIB = 64

_texts = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["", "..", "../../etc/passwd", "%00", "\x00", "0", "-1", "1e999", "NaN", "a" * 300, "💥", "' OR 1=1 --"]
    ),
)
_words = st.sampled_from(
    [
        "k",
        "filter",
        "image_url",
        "item_id",
        "crop",
        "min_score",
        "group_by",
        "per_group",
        "callback_url",
        "title",
        "attributes",
        "mode",
        "path",
        "image_urls",
        "item_ids",
        "all_items",
        "and",
        "or",
        "not",
        "eq",
        "in",
        "x",
        "y",
        "width",
        "height",
    ]
)
_numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([2**31, 2**63, 2**64, -(2**63) - 1, 10**400]))
_json = st.recursive(
    st.none() | st.booleans() | _numbers | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_words | _texts, inner, max_size=5),
    max_leaves=12,
)
_headers = st.dictionaries(
    st.sampled_from(["Content-Type", "Idempotency-Key", "Prefer", "Accept", "Range", "If-None-Match", "Cache-Control"]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60)
    | st.sampled_from(
        ["application/json", "application/x-ndjson", "multipart/form-data; boundary=b", "wait=1", "bytes=9-1"]
    ),
    max_size=3,
)


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
    groups = {name: system.group.pid(name) for name in ("web", "search")}
    images = generated(mutated_images(), scale.mutated)
    operations = _operations(system.get("/openapi.json").json())
    mutated = generated(_requests(operations), scale.mutated)
    _send_all(images[: CLIENTS * 2], lambda image: _search(trial, image))  # memory counts from the second time on
    before = resident_mib(groups)
    trial.say(f"{len(images)} mutated images")
    errors = _send_all(images, lambda image: _search(trial, image))
    trial.say(f"{len(mutated)} mutated requests")
    errors += _send_all(mutated, lambda request: _request(trial, *request))
    for job_id in trial.ledger.lost:
        trial.finished(job_id, HANG_SECONDS)
    errors += [f"a job failed with {code}" for code in OUR_FAULT for _ in range(trial.ledger.failed[code])]
    growth = {name: mib - before[name] for name, mib in resident_mib(groups).items()}
    for error in errors[:10]:
        trial.record.broken.append(error)
    for name, mib in growth.items():
        trial.require(mib < MEMORY_GROWTH_MIB, f"{name} grew by {mib:.0f} MiB")
    trial.record.figures |= {
        "images": len(images),
        "requests": len(mutated),
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


def _operations(document: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """Return method, path and the names of the query parameters of each operation that the server documents."""
    found = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method in ("get", "post", "put", "delete", "patch") and not path.startswith(LEFT_OUT):
                names = [entry["name"] for entry in operation.get("parameters", []) if entry.get("in") == "query"]
                found.append((method.upper(), path, names))
    return found


Request = tuple[str, str, dict[str, str], bytes]


@st.composite
def _requests(draw: st.DrawFn, operations: Sequence[tuple[str, str, list[str]]]) -> Request:
    """Draw a request to an operation: its path, parameters, headers and body filled with anything."""
    method, path, names = draw(st.sampled_from(operations))
    while "{" in path:
        start, _, rest = path.partition("{")
        path = start + quote(draw(_texts), safe="") + rest.partition("}")[2]
    asked = draw(st.dictionaries(st.sampled_from(names) if names else _words, _texts | _numbers.map(str), max_size=3))
    headers = draw(_headers)
    if draw(st.booleans()):
        body = json.dumps(draw(_json)).encode("utf-8", "surrogatepass")
        headers.setdefault("Content-Type", "application/json")
    else:
        body = draw(st.binary(max_size=200))
    return method, f"{path}?{urlencode(asked)}", headers, body if method != "GET" else b""


def _search(trial: Trial, image: bytes) -> str:
    headers = {"Prefer": f"wait={HANG_SECONDS}", "Cache-Control": "no-cache"}
    options = {"files": {"image": ("photo", image)}, "headers": headers}
    return _answered(trial, "a mutated image", "POST", "/v1/searches", options)


def _request(trial: Trial, method: str, path: str, headers: dict[str, str], body: bytes) -> str:
    return _answered(trial, f"{method} {path} {headers} {body!r}", method, path, {"headers": headers, "data": body})


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
    "1,000 mutated images and 1,000 mutated requests to every documented operation (quick: 100 and 100).",
    "No answer of 500 and more, no job that fails by our fault, no hang, no growth of memory.",
    run,
)
