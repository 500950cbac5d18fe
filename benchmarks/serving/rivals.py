"""Starts LitServe, Flask and plain Celery, one alone at a time, tries their settings and measures the best ones."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.serving.load import LoadPlan, run_load
from benchmarks.serving.processes import GRACE_SECONDS, environment, running, wait_until_answers
from benchmarks.serving.scale import CLIENTS, Scale
from benchmarks.serving.statistics import summary
from demo.ports import LOOPBACK, free_port
from demo.redis_server import RedisServer
from demo.state_lock import lock_state

WEB_THREADS = 64
TRIAL_CLIENTS = max(CLIENTS)
WARMING_PHOTOS = 16
Format = Literal["multipart", "json"]


@dataclass(frozen=True)
class Variant:
    """One way to run a rival.

    Attributes:
        label: for the report.
        batch: most photos of a forward pass, where the rival batches.
        workers: processes that hold a model; the cores are shared among them.
        format: how photos are sent.
    """

    label: str
    batch: int = 1
    workers: int = 1
    format: Format = "multipart"


@dataclass(frozen=True)
class Served:
    """A rival that runs."""

    port: int
    path: str
    groups: Mapping[str, int]


LITSERVE, FLASK, CELERY = "litserve", "sync_flask", "plain_celery"


def variants(rival: str, cores: int) -> list[Variant]:
    """Return the settings that are tried, the most likely ones first."""
    if rival == LITSERVE:
        formats: Sequence[Format] = ("multipart", "json")
        tried = [Variant(f"batch 8, 1 worker, {form}", 8, 1, form) for form in formats]
        tried += [Variant("batch 16, 1 worker, multipart", 16), Variant("batch 1, 1 worker, multipart", 1)]
        more = [Variant(f"batch {batch}, {cores} workers, multipart", batch, cores) for batch in (8, 1)]
        return tried + (more if cores > 1 else [])
    kind = "gunicorn workers" if rival == FLASK else "prefork processes"
    return [
        Variant(f"{count} {kind}, {max(1, cores // count)} threads each", 1, count)
        for count in sorted({1, cores}, reverse=True)
    ]


@contextmanager
def served(rival: str, variant: Variant, bundle: Path, threads: int, scratch: Path) -> Iterator[Served]:
    """Run a rival for as long as the block lasts.

    Raises:
        ProcessFailed: if a process of it dies, or doesn't answer in time.
    """
    port, each = free_port(), max(1, threads // variant.workers)
    logs = scratch / "logs"
    python = [sys.executable, "-m"]
    with ExitStack() as stack:
        if rival == LITSERVE:
            command = [*python, "benchmarks.serving.litserve_app", "--bundle", str(bundle), "--port", str(port)]
            command += ["--batch", str(variant.batch), "--workers", str(variant.workers)]
            server = stack.enter_context(running(LITSERVE, command, logs))
            parts, path, groups = [server], "/predict", {"litserve": server.pid}
        elif rival == FLASK:
            app = f"benchmarks.serving.flask_app:create_app({str(bundle)!r}, {each})"
            server = stack.enter_context(running(FLASK, _gunicorn(port, "sync", variant.workers, app), logs))
            parts, path, groups = [server], "/search", {"flask": server.pid}
        else:
            folder = scratch / "plain-redis"
            folder.mkdir(parents=True, exist_ok=True)
            redis = RedisServer(folder, environment(), scratch / "plain-redis.log")
            stack.callback(lambda: redis.process.stop(GRACE_SECONDS))
            redis.start(stack.enter_context(lock_state(folder)).fileno())
            command = [*python, "benchmarks.serving.celery_app", "--redis", redis.url, "--bundle", str(bundle)]
            command += ["--threads", str(each), "--processes", str(variant.workers)]
            worker = stack.enter_context(running("plain-celery", command, logs))
            app = f"benchmarks.serving.celery_app:create_web({redis.url!r})"
            web = stack.enter_context(running("plain-web", _gunicorn(port, "gthread", 1, app), logs))
            parts, path = [web, worker], "/search"
            groups = {"web": web.pid, "celery": worker.pid, "redis": redis.process.pid}
        wait_until_answers(f"http://{LOOPBACK}:{port}/health", parts)
        yield Served(port, path, groups)


def warm(plan: LoadPlan) -> LoadPlan:
    """Have each model loaded and run, whichever process a photo comes to."""
    run_load(replace(plan, photos=plan.photos[:WARMING_PHOTOS]))
    return plan


def _gunicorn(port: int, kind: str, workers: int, app: str) -> list[str]:
    command = ["gunicorn", "--bind", f"{LOOPBACK}:{port}", "--worker-class", kind, "--workers", str(workers)]
    return [
        *command,
        *(["--threads", str(WEB_THREADS)] if kind == "gthread" else []),
        "--timeout",
        "120",
        "--no-control-socket",
        app,
    ]


def measure_rival(rival: str, bundle: Path, threads: int, photos: Sequence[str], scale: Scale, scratch: Path) -> Any:
    """Try a rival's settings at the most clients, and measure the best at each number of clients.

    Returns:
        variant: label of the best; tried: rate of each; clients: figures by number of clients; answers: as run_load.
    """
    tried: dict[str, float] = {}
    wanted = variants(rival, threads)[: scale.tries]
    for variant in wanted if len(wanted) > 1 else []:
        with served(rival, variant, bundle, threads, scratch) as server:
            plan = warm(rival_plan(server, variant, photos, TRIAL_CLIENTS))
            plan = replace(plan, warmup_seconds=scale.warmup_seconds, seconds=scale.trial_seconds)
            tried[variant.label] = run_load(plan)["windows"][0]["rate"]
    best = max(wanted, key=lambda variant: tried.get(variant.label, 0.0))
    clients, answers = {}, {}
    with served(rival, best, bundle, threads, scratch) as server:
        warm(rival_plan(server, best, photos, TRIAL_CLIENTS))
        for count in CLIENTS:
            plan = replace(
                rival_plan(server, best, photos, count),
                warmup_seconds=scale.warmup_seconds,
                seconds=scale.seconds,
                repetitions=scale.repetitions,
                keep_answers=True,
            )
            done = run_load(plan)
            clients[str(count)] = summary(done["windows"])
            answers.update(done["answers"])
    return {"variant": best.label, "tried": tried, "clients": clients, "answers": answers}


def rival_plan(server: Served, variant: Variant, photos: Sequence[str], clients: int) -> LoadPlan:
    """Return a plan that searches with photos as a rival takes them."""
    groups = dict(server.groups)
    return LoadPlan(server.port, server.path, list(photos), clients, format=variant.format, groups=groups)
