"""What is measured of Lookalike alone: caches, single flight, many clients, Redis, bulk work, starts."""

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import requests

from benchmarks.report import percentile
from benchmarks.serving.load import run_load
from benchmarks.serving.lookalike import CACHED, FRESH, Running
from benchmarks.serving.photos import Material, unknown_photo
from benchmarks.serving.processes import cpu_seconds, peak_mib
from benchmarks.serving.scale import CLIENTS, IDENTICAL_UPLOADS, MANY_CLIENTS, Scale
from benchmarks.serving.statistics import median_of, summary

REDIS_SEARCHES = 100
LEAST_CALLS = 0.1  # below that it is upkeep, which the subtraction doesn't meet exactly
IDLE_SECONDS = 3.0
PROBE_SECONDS = 0.1
EMBEDDING_K = "11"  # another k is another result of the same photo: its embedding is known, its result is not


def cold_searches(running: Running, photos: Sequence[str], scale: Scale) -> dict[str, Any]:
    """Search past all caches at each number of clients; return figures by number of clients, and the answers."""
    clients, answers = {}, {}
    for count in CLIENTS:
        done = run_load(_timed(running, photos, count, FRESH, scale))
        clients[str(count)] = summary(done["windows"])
        answers.update(done["answers"])
    return {"clients": clients, "answers": answers}


def repeats(running: Running, photos: Sequence[str], scale: Scale) -> dict[str, Any]:
    """Search with photos whose results are known; return figures by number of clients."""
    run_load(running.plan(photos, 8, CACHED))
    return {
        str(count): summary(run_load(_timed(running, photos, count, CACHED, scale))["windows"]) for count in CLIENTS
    }


def cache_hits(running: Running, material: Material) -> dict[str, Any]:
    """Search once with each photo for each kind of hit; return figures by kind.

    similar_kept is the mean share of the ten items of a fresh answer that an answer from the caches holds.
    """
    photos, copies = [str(path) for path in material.photos], [str(path) for path in material.copies]
    run_load(running.plan(photos, 8, CACHED))
    similar = run_load(running.plan(copies, 1, CACHED, keep_answers=True))
    fresh = run_load(running.plan(copies, 8, FRESH, keep_answers=True))
    kinds = {
        "embedding": run_load(running.plan(photos, 1, CACHED, k=EMBEDDING_K))["windows"][0],
        "similar": similar["windows"][0],
        "exact": run_load(running.plan(photos, 1, CACHED))["windows"][0],
    }
    shares = [len({*similar["answers"][copy]} & {*fresh["answers"][copy]}) / 10 for copy in copies]
    return {**kinds, "similar_kept": statistics.fmean(shares)}


def single_flight(running: Running, scratch: Path) -> dict[str, Any]:
    """Upload one photo, unknown before, a hundred times at once; return who was answered from where, and how fast."""
    photo = scratch / "unknown.jpg"
    photo.write_bytes(unknown_photo(f"single flight {time.time_ns()}"))
    return dict(run_load(running.plan([str(photo)] * IDENTICAL_UPLOADS, IDENTICAL_UPLOADS, CACHED))["windows"][0])


def many_clients(running: Running, photos: Sequence[str]) -> dict[str, Any]:
    """Search twice with each of 200 clients at once, and ask /healthz meanwhile: do they leave threads for others?"""
    probes, is_over = list[float](), threading.Event()

    def probe() -> None:
        with requests.Session() as session:
            while not is_over.wait(PROBE_SECONDS):
                start = time.perf_counter()
                session.get(f"{running.group.base_url}/healthz", timeout=60).raise_for_status()
                probes.append((time.perf_counter() - start) * 1000)

    prober = threading.Thread(target=probe)
    prober.start()
    try:
        twice = [photos[number % len(photos)] for number in range(2 * MANY_CLIENTS)]
        window = run_load(running.plan(twice, MANY_CLIENTS, FRESH))["windows"][0]
    finally:
        is_over.set()
        prober.join()
    return {**window, "healthz_p95": percentile(probes, 0.95), "healthz_probes": len(probes)}


def redis_per_search(running: Running, photos: Sequence[str]) -> dict[str, Any]:
    """Count what one cold search of a lone client costs Redis; what the idle system costs is subtracted.

    Returns:
        calls: by command; commands: their sum; bytes_in and bytes_out.
    """
    start, before = time.perf_counter(), running.redis_counters()
    time.sleep(IDLE_SECONDS)
    idle, between = time.perf_counter() - start, running.redis_counters()
    start = time.perf_counter()
    searches = run_load(running.plan(photos[:REDIS_SEARCHES], 1, FRESH))["windows"][0]["searches"]
    busy, after = time.perf_counter() - start, running.redis_counters()
    each = {
        name: (after[name] - between[name] - (between[name] - before[name]) * busy / idle) / searches for name in after
    }
    traffic = {name: each.pop(name) for name in ("bytes_in", "bytes_out")}
    calls = {name: count for name, count in sorted(each.items(), key=lambda pair: -pair[1]) if count >= LEAST_CALLS}
    return {"calls": calls, "commands": sum(calls.values()), **traffic}


def bulk(running: Running, material: Material, scale: Scale, raw_rate: Callable[[], float]) -> dict[str, Any]:
    """Import two quarters of what is left of the catalogue alone, and half while one client searches.

    Args:
        running: the installation.
        material: photos and catalogue.
        scale: of the bench.
        raw_rate: measures the raw engine's images a second; asked before, between and after the lone imports.

    Returns:
        alone: the lone imports; rates and raw_rates: their images a second, and those of the raw engine just before and
        after, on average; ratio: the mean of the ones over the others; cpu_ms: CPU time of an image by process; idle:
        figures of one client just before and just after the search beside an import, together.
    """
    rest = material.products[scale.calibration_items :]
    half = len(rest) // 2
    raw, alone, cpu = [raw_rate()], [], Counter[str]()
    for number, part in enumerate((rest[: half // 2], rest[half // 2 : half])):
        before = cpu_seconds(running.groups)
        alone.append(running.import_products(part, material.root, f"bulk-{number}.csv"))
        cpu.update({name: 1000 * (used - before[name]) for name, used in cpu_seconds(running.groups).items()})
        raw.append(raw_rate())
    rates = [done["embedded"] / done["committed_s"] for done in alone]
    raw_rates = [statistics.fmean(pair) for pair in pairwise(raw)]
    # Less than the import will take, so that it runs to the end of the load.
    seconds = max(1.0, min(3 * scale.seconds, 0.5 * (len(rest) - half) / statistics.fmean(rates)))
    photos = [str(photo) for photo in material.photos]
    plan = replace(running.plan(photos, 1, FRESH), warmup_seconds=0.5, seconds=seconds)
    idle = [run_load(plan)["windows"][0]]
    together = running.search_while_importing(plan, rest[half:], material.root)
    idle.append(run_load(plan)["windows"][0])
    return {
        "alone": alone,
        "rates": rates,
        "raw_rates": raw_rates,
        "ratio": statistics.fmean(ours / theirs for ours, theirs in zip(rates, raw_rates, strict=True)),
        "cpu_ms": {name: used / sum(done["embedded"] for done in alone) for name, used in cpu.items()},
        "idle": median_of(idle),
        "together": together,
    }


def cold_starts(running: Running, photo: Path, scale: Scale) -> dict[str, Any]:
    """Kill the search worker, start it again and search at once.

    Returns:
        seconds: medians from the start of the process to the answer; peak_mib: of the last one, after its answer.
    """
    seconds = []
    for _ in range(scale.starts):
        running.group.kill("search")
        start = time.perf_counter()
        running.group.restart("search")
        with photo.open("rb") as file:
            answer = requests.post(
                f"{running.group.base_url}/v1/searches", files={"image": file}, headers=FRESH, timeout=120
            )
        seconds.append(time.perf_counter() - start)
        if answer.status_code != 200:
            raise RuntimeError(f"no answer after a start of the search worker: {answer.status_code} {answer.text}")
    return {"seconds": statistics.median(seconds), "all": seconds, "peak_mib": peak_mib(running.group.pid("search"))}


def _timed(running: Running, photos: Sequence[str], clients: int, headers: dict[str, str], scale: Scale) -> Any:
    plan = running.plan(photos, clients, headers, keep_answers=headers is FRESH)
    return replace(plan, warmup_seconds=scale.warmup_seconds, seconds=scale.seconds, repetitions=scale.repetitions)
