"""Half of the highest rate, for as long as one likes, with imports beside it: nothing may grow or get slower."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

from benchmarks.report import percentile
from benchmarks.serving.statistics import median_of
from chaos.experiment import Experiment
from chaos.load import Load
from chaos.trial import Trial
from chaos.usage import open_files, resident_mib

# Records and caches of an hour would be all of the growth: they expire within the soak instead.
SETTINGS = {
    "LOOKALIKE_SEARCH_DEADLINE_SECONDS": "30",
    "LOOKALIKE_JOB_TTL_SECONDS": "60",
    "LOOKALIKE_CACHE_TTL_SECONDS": "60",
}
RATE_SECONDS, RATE_CLIENTS = 20, 8
MINUTE_SECONDS = 60
IMPORT_ROWS = 300
WARM_SHARE, JUDGED_SHARE = 0.2, 0.2  # of all minutes: not looked at; compared with as many at the end
MAX_GROWTH_PERCENT = 10.0
MAX_MORE_FILES = 20
MAX_P95_FACTOR = 2.0


def soak(minutes: int) -> Experiment:
    """Return the soak of so many minutes."""

    def run(trial: Trial) -> None:
        _run(trial, minutes)

    return Experiment(
        "soak",
        f"{minutes} minutes of searches at half the highest rate, with one import after the other.",
        f"After warm-up no process grows by more than {MAX_GROWTH_PERCENT:g} %, nor by {MAX_MORE_FILES} open files or "
        f"connections; p95 stays below {MAX_P95_FACTOR:g} times what it was.",
        run,
    )


def _run(trial: Trial, minutes: int) -> None:
    trial.say("the highest rate")
    # Without idempotency keys, which Redis keeps for a day.
    fastest = Load([trial.system.base_url], trial.ledger, clients=RATE_CLIENTS, sends_keys=False)
    with fastest.running():
        time.sleep(RATE_SECONDS / 2)
        answered = fastest.answered
        time.sleep(RATE_SECONDS / 2)
        rate = (fastest.answered - answered) / (RATE_SECONDS / 2)
    load = Load([trial.system.base_url], trial.ledger, per_second=rate / 2, sends_keys=False)
    with load.running(), _importing(trial) as imported:
        for minute in range(1, minutes + 1):
            first = len(load.milliseconds)
            time.sleep(MINUTE_SECONDS)
            trial.record.minutes.append(_measure(trial, load.milliseconds[first:]))
            trial.say(f"minute {minute} of {minutes}: p95 {trial.record.minutes[-1]['p95_ms']:.0f} ms")
    trial.check_load(load)
    trial.require(bool(imported), "no import ended")
    _judge(trial, rate)
    trial.record.figures["imports"] = len(imported)
    trial.ledger.forget_ended()  # their records have expired meanwhile, as they shall


def _measure(trial: Trial, milliseconds: list[float]) -> dict[str, Any]:
    groups = {name: trial.system.group.pid(name) for name in trial.system.processes}
    with trial.system.redis() as client:
        connections = client.info("clients")["connected_clients"]
    return {
        "searches": len(milliseconds),
        "p95_ms": percentile(milliseconds, 0.95) if milliseconds else 0.0,
        "mib": {name: round(mib, 1) for name, mib in resident_mib(groups).items()},
        "files": open_files(groups),
        "redis_connections": connections,
    }


def _judge(trial: Trial, rate: float) -> None:
    warm, last = compared(trial.record.minutes)
    growth = {name: (last["mib"][name] / warm["mib"][name] - 1) * 100 for name in warm["mib"]}
    for name, percent in growth.items():
        trial.require(percent <= MAX_GROWTH_PERCENT, f"{name} grew by {percent:.0f} %")
        more = last["files"][name] - warm["files"][name]
        trial.require(more <= MAX_MORE_FILES, f"{name} has {more} more files open")
    more = last["redis_connections"] - warm["redis_connections"]
    trial.require(more <= MAX_MORE_FILES, f"Redis has {more} more connections")
    slower = last["p95_ms"] / warm["p95_ms"] if warm["p95_ms"] else 1.0
    trial.require(slower <= MAX_P95_FACTOR, f"p95 is {slower:.1f} times what it was after warm-up")
    trial.record.figures |= {
        "searches_per_second": round(rate / 2, 1),
        "soak_memory_growth_percent": round(max(growth.values()), 1),
        "p95_ms_warm": round(warm["p95_ms"]),
        "p95_ms_last": round(last["p95_ms"]),
    }


def compared(minutes: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the medians of some minutes after warm-up, and of as many at the end, each shaped like a minute."""
    judged = max(1, int(len(minutes) * JUDGED_SHARE))
    first = min(int(len(minutes) * WARM_SHARE), len(minutes) - 1)
    return median_of(minutes[first : first + judged]), median_of(minutes[-judged:])


@contextmanager
def _importing(trial: Trial) -> Iterator[list[str]]:
    """Import the same items with other photos, again and again, for as long as the block lasts; gives what ended."""
    is_over, ended = Event(), list[str]()

    def send() -> None:
        while not is_over.is_set():
            job_id = trial.send_import("soak", IMPORT_ROWS, edition=f"/{len(ended)}")
            job = trial.finished(job_id, 600)
            trial.require(bool(job and job["status"] == "succeeded"), f"an import ended as {job and job['status']}")
            ended.append(job_id)

    thread = Thread(target=send, daemon=True)
    thread.start()
    try:
        yield ended
    finally:
        is_over.set()
        thread.join(600)
