"""Lookalike and another system in turn, window after window: whatever the machine does meanwhile meets both.

The machines that this runs on change their speed by a factor of two within minutes, so that two systems that are
measured ten minutes apart can't be compared. Both are up here at the same time; the one that is not asked is stopped
(SIGSTOP), since an idle server is not always quiet: LitServe's workers look for work all the time.
"""

import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.serving.load import LoadPlan, run_load
from benchmarks.serving.lookalike import CACHED, FRESH, Lookalike, Running
from benchmarks.serving.processes import stopped
from benchmarks.serving.rivals import rival_plan, served, variants, warm
from benchmarks.serving.scale import CLIENTS, Scale
from benchmarks.serving.statistics import median_of

WARMUP_SECONDS = 0.5
RAW_PHOTOS = 100

Window = dict[str, Any]
Raw = Callable[[Sequence[str]], dict[str, Any]]
"""Runs the raw engine for one window with some photos and returns its figures."""


class Duels:
    """All comparisons of one encoder."""

    def __init__(
        self,
        installation: Lookalike,
        bundle: Path,
        photos: Sequence[str],
        scale: Scale,
        scratch: Path,
        threads: int,
        raw: Raw,
    ) -> None:
        """Args:
        installation: with its catalogue and its release.
        bundle: what the rivals answer from.
        photos: files to search with.
        scale: lengths of windows, and how many pairs of them.
        scratch: for logs.
        threads: CPU threads of a rival.
        raw: runs the raw engine.
        """
        self._installation = installation
        self._bundle = bundle
        self._photos = list(photos)
        self._scale = scale
        self._scratch = scratch
        self._threads = threads
        self._raw = raw
        self._floors: list[float] = []

    def measure(self, chosen: Mapping[str, str]) -> dict[str, Any]:
        """Return the pairs of windows by what is compared with.

        Args:
            chosen: label of the setting that each rival is measured with.

        Returns:
            For each of raw, repeats_1, repeats_32, lone and the rivals: ours and theirs, one number a window,
            `ratio`, the median of ours / theirs, and our_cpu_ms and their_cpu_ms of a search by process, medians, where
            they are known. Of `lone` ours is the p95 of a lone client, theirs a forward pass, in
            ms both, `difference` the median of ours - theirs, and `floor` the median of what the p95 of the raw engine,
            when it pauses between searches, is above a forward pass.
        """
        most = max(CLIENTS)
        with self._installation.group() as group:
            running = Running(group)
            run_load(running.plan(self._photos, 8, CACHED))  # what repeats are answered from
            cold = {clients: self._ours(running, clients, FRESH) for clients in (1, most)}
            known = {clients: self._ours(running, clients, CACHED) for clients in (1, most)}
            pairs = {
                "raw": self._in_turn(cold[most], self._raw_rate),
                "lone": self._in_turn(cold[1], self._forward_pass, "p95", "p50"),
                **{f"repeats_{clients}": self._in_turn(known[clients], cold[clients]) for clients in (1, most)},
            }
            for rival, label in chosen.items():
                variant = next(each for each in variants(rival, self._threads) if each.label == label)
                with served(rival, variant, self._bundle, self._threads, self._scratch) as server:
                    plan = warm(rival_plan(server, variant, self._photos, most))
                    theirs = _without(running.groups.values(), self._window(plan))
                    pairs[rival] = self._in_turn(_without(server.groups.values(), cold[most]), theirs)
        both = zip(pairs["lone"]["ours"], pairs["lone"]["theirs"], strict=True)
        pairs["lone"]["difference"] = statistics.median(p95 - forward for p95, forward in both)
        pairs["lone"]["floor"] = statistics.median(self._floors)
        return pairs

    def _raw_rate(self) -> Window:
        return dict(self._raw(self._photos[:RAW_PHOTOS])["loop"])

    def _forward_pass(self) -> Window:
        raw = self._raw(self._photos[:RAW_PHOTOS])
        self._floors.append(raw["paused"]["p95"] - raw["forward_ms"]["p50"])
        return dict(raw["forward_ms"])

    def _ours(self, running: Running, clients: int, headers: dict[str, str]) -> Callable[[], Window]:
        return self._window(running.plan(self._photos, clients, headers))

    def _window(self, plan: LoadPlan) -> Callable[[], Window]:
        timed = replace(plan, warmup_seconds=WARMUP_SECONDS, seconds=self._scale.seconds, repetitions=1)
        return lambda: dict(run_load(timed)["windows"][0])

    def _in_turn(
        self,
        ours: Callable[[], Window],
        theirs: Callable[[], Window],
        our_figure: str = "rate",
        their_figure: str = "rate",
    ) -> dict[str, Any]:
        pairs = [(ours(), theirs()) for _ in range(self._scale.pairs)]
        found = [[window[0][our_figure] for window in pairs], [window[1][their_figure] for window in pairs]]
        cpu = [median_of([pair[side].get("cpu_ms", {}) for pair in pairs]) for side in (0, 1)]
        return {
            **dict(zip(("ours", "theirs"), found, strict=True)),
            **dict(zip(("our_cpu_ms", "their_cpu_ms"), cpu, strict=True)),
            "ratio": statistics.median(one / other for one, other in zip(*found, strict=True)),
        }


def _without(others: Collection[int], window: Callable[[], Window]) -> Callable[[], Window]:
    """Have a window measured while the process groups of another system are stopped."""

    def alone() -> Window:
        with stopped(others):
            return window()

    return alone
