"""One run: every system after the other, each alone on the machine."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.serving.duels import Duels
from benchmarks.serving.load import run_load
from benchmarks.serving.lookalike import CACHED, FRESH, Lookalike, Running
from benchmarks.serving.lookalike_parts import (
    bulk,
    cache_hits,
    cold_searches,
    cold_starts,
    many_clients,
    redis_per_search,
    repeats,
    single_flight,
)
from benchmarks.serving.photos import Material
from benchmarks.serving.processes import ROOT, environment, peak_mib
from benchmarks.serving.profile import Profiler, ProfileUnavailable
from benchmarks.serving.raw_engine import RawPlan
from benchmarks.serving.rivals import measure_rival
from benchmarks.serving.scale import CLIENTS, Scale
from benchmarks.serving.threads import by_role, cpu_seconds_of_threads, members, roles

BULK_IMAGES = 1500
PROFILE_SECONDS = 10.0
PROFILED = (("cold", max(CLIENTS)), ("cold", 1), ("repeats", 1), ("repeats", max(CLIENTS)))
PROCESS_SECONDS = 900


@dataclass(frozen=True)
class Wanted:
    """What a run measures.

    Attributes:
        scale: how long.
        rivals: names of the systems beside Lookalike and the raw engine.
        profiles: whether py-spy looks on.
    """

    scale: Scale
    rivals: tuple[str, ...]
    profiles: bool


class EncoderRun:
    """Measures all systems with one encoder."""

    def __init__(
        self,
        backbone: str,
        weights: Path | None,
        material: Material,
        wanted: Wanted,
        scratch: Path,
        say: Callable[[str], None],
    ) -> None:
        """Args:
        backbone: name of the encoder.
        weights: its file; None: its own.
        material: photos and catalogue.
        wanted: what is measured.
        scratch: empty folder.
        say: told what happens now.
        """
        self._material, self._wanted, self._scratch = material, wanted, scratch
        self._say = lambda text: say(f"{backbone}: {text}")
        self._threads = os.cpu_count() or 1
        self._installation = Lookalike(backbone, weights, scratch / "state", material.root)
        self._photos = [str(photo) for photo in material.photos]
        self._index = scratch / "index"

    def measure(self) -> dict[str, Any]:
        """Return all figures of this encoder."""
        ours = self._prepare()
        bundle, manifest = self._installation.bundle(self._index, self._threads)
        measured: dict[str, Any] = {"release": manifest, "rivals": {}, "lookalike": ours}
        self._say("raw engine")
        measured["raw"] = self._raw(bundle, self._photos)
        self._say("torch eager")
        listed = self._scratch / "photos.txt"
        listed.write_text("\n".join(self._photos), encoding="utf-8")
        measured["torch_eager"] = _run_module("torch_eager", str(bundle), str(listed), str(self._wanted.scale.seconds))
        ours |= self._serve()
        for rival in self._wanted.rivals:
            self._say(rival)
            measured["rivals"][rival] = measure_rival(
                rival, bundle, self._threads, self._photos, self._wanted.scale, self._scratch
            )
        self._say("Lookalike and each other system in turn")

        def raw(photos: Sequence[str]) -> dict[str, Any]:
            plan = RawPlan(str(bundle), list(photos), [], self._wanted.scale.seconds, 1)
            return _run_module("raw_engine", stdin=json.dumps(asdict(plan)))

        duels = Duels(self._installation, bundle, self._photos, self._wanted.scale, self._scratch, self._threads, raw)
        measured["duels"] = duels.measure({name: rival["variant"] for name, rival in measured["rivals"].items()})
        _compare_answers(measured)
        return measured

    def _prepare(self) -> dict[str, Any]:
        """Import the catalogue in three steps, with the release built after the first; return the bulk figures."""
        material, scale = self._material, self._wanted.scale
        first = material.products[: scale.calibration_items]
        with self._installation.group() as group:
            running = Running(group)
            self._say(f"first import, {len(first)} items")
            ours: dict[str, Any] = {"first_import": running.import_products(first, material.root, "first.csv")}
            self._say("building the release")
            ours["build_s"] = self._installation.build_release(group.redis_url)
            self._restart(group)
            self._say("bulk import")
            early, _ = self._installation.bundle(self._scratch / "early-index", self._threads)
            ours["bulk"] = bulk(running, material, scale, lambda: self._raw(early, [])["bulk_rate"])
            if scale.rebuilds:
                self._say("building the release again, from the whole catalogue")
                ours["rebuild_s"] = self._installation.build_release(group.redis_url)
        return ours

    def _serve(self) -> dict[str, Any]:
        scale, material = self._wanted.scale, self._material
        with self._installation.group() as group:
            running = Running(group)
            self._say("Lookalike, cold searches")
            ours: dict[str, Any] = {"cold": cold_searches(running, self._photos, scale)}
            ours["redis"] = redis_per_search(running, self._photos)
            self._say("Lookalike, caches")
            ours["repeats"] = repeats(running, self._photos, scale)
            ours["cache_hits"] = cache_hits(running, material)
            ours["single_flight"] = single_flight(running, self._scratch)
            self._say("Lookalike, many clients")
            ours["many_clients"] = many_clients(running, self._photos)
            ours["busy_peak_mib"] = peak_mib(group.pid("search"))
            if self._wanted.profiles:
                self._say("Lookalike, profile")
                ours["profiles"] = {
                    load: self._profile(running, clients, FRESH if kind == "cold" else CACHED)
                    for kind, clients in PROFILED
                    for load in [f"{kind}_{clients}"]
                }
            self._say("Lookalike, cold starts")
            ours["cold_start"] = cold_starts(running, material.photos[0], scale)
        return ours

    def _restart(self, group: Any) -> None:
        for name in ("search", "bulk"):
            group.restart(name)
        group.wait_until_ready()

    def _raw(self, bundle: Path, photos: Sequence[str]) -> dict[str, Any]:
        scale, material = self._wanted.scale, self._material
        images = material.images(material.products[scale.calibration_items :][:BULK_IMAGES])
        names = [str(image) for image in images]
        plan = RawPlan(str(bundle), list(photos), names, scale.seconds, scale.repetitions)
        return _run_module("raw_engine", stdin=json.dumps(asdict(plan)))

    def _profile(self, running: Running, clients: int, headers: dict[str, str]) -> dict[str, Any]:
        """Return CPU time by thread of a load that nobody watches, and then what py-spy sees of the same load."""
        pids = {name: running.group.pid(name) for name in ("web", "search")}
        seconds = PROFILE_SECONDS if self._wanted.scale.repetitions > 1 else PROFILE_SECONDS / 3
        profiler = Profiler(pids, seconds, self._scratch / "profile")
        try:
            threads = self._threads_of(running, pids, clients, headers)
            profiler.start()
            plan = running.plan(self._photos, clients, headers)
            (window,) = run_load(replace(plan, seconds=seconds + 3, repetitions=1))["windows"]
            searches = window["rate"] * seconds
            held = profiler.categories()
        except ProfileUnavailable as error:
            return {"unavailable": str(error)}
        return {
            "held_ms": {
                process: {name: 1000 * taken / searches for name, taken in categories.items()}
                for process, categories in held.items()
            },
            "cpu_ms": {process: window["cpu_ms"][process] for process in held},
            "rate": window["rate"],
            "threads": threads,
        }

    def _threads_of(
        self, running: Running, pids: Mapping[str, int], clients: int, headers: dict[str, str]
    ) -> dict[str, Any]:
        plan = replace(running.plan(self._photos, clients, headers), seconds=self._wanted.scale.seconds)
        processes = {name: members(group) for name, group in pids.items()}
        run_load(plan)  # what a pause has let go cold; and threads begin with their first work
        try:
            known = {name: roles(found) for name, found in processes.items()}
        except (OSError, subprocess.SubprocessError) as error:
            raise ProfileUnavailable(f"threads have no names: {error}") from error
        before = {name: cpu_seconds_of_threads(found) for name, found in processes.items()}
        searches = run_load(plan)["windows"][0]["searches"]
        after = {name: cpu_seconds_of_threads(found) for name, found in processes.items()}
        return {
            name: {
                role: 1000 * used / searches for role, used in by_role(before[name], after[name], known[name]).items()
            }
            for name in pids
        }


def _run_module(module: str, *arguments: str, stdin: str = "") -> dict[str, Any]:
    """Run a module of this package in a process of its own and return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.serving.{module}", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        timeout=PROCESS_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{module} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _compare_answers(measured: dict[str, Any]) -> None:
    """Replace answers by the mean share of the raw engine's items among them, whatever their order: ties have none."""
    expected: Mapping[str, list[str]] = measured["raw"].pop("answers")
    for system in (measured["lookalike"]["cold"], *measured["rivals"].values()):
        answers: dict[str, list[str]] = system.pop("answers")
        same = sum(len({*answers[photo]} & {*expected[photo]}) for photo in answers)
        system["same_items"] = same / max(1, sum(len(expected[photo]) for photo in answers))
