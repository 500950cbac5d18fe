"""The losses in words: what each goal would take, and what there is; every number is of the run."""

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.serving.figures import GOALS, MOST, SHORT

ENGINE_STEPS = ("decode", "embed", "search")
_LIMITS = {goal.figure: goal.limit for goal in GOALS}
TIMES_FASTER = _LIMITS["vs_sync_flask_lite0"]
TIMES_REPEATED = _LIMITS["repeat_ratio_lite0"]
OVERHEAD_MS = _LIMITS["p95_overhead_ms_lite0"]
BULK_SHARE = _LIMITS["bulk_ratio_lite0"]


def losses_in_words(encoders: Mapping[str, Any], cores: int) -> Iterator[str]:
    """Yield the section's lines; what was not measured is left out.

    Args:
        encoders: what was measured of each.
        cores: of the machine.
    """
    yield "## The losses in words"
    yield ""
    for backbone, measured in encoders.items():
        yield f"**{SHORT[backbone]}**"
        yield ""
        words = _Words(measured, cores)
        for told in (words.many, words.litserve, words.rivals, words.lone, words.repeats, words.bulk):
            yield from told()
        yield ""


class _Words:
    """What is told of one encoder."""

    def __init__(self, measured: Mapping[str, Any], cores: int) -> None:
        self._raw: Mapping[str, Any] = measured["raw"]
        self._ours: Mapping[str, Any] = measured["lookalike"]
        self._duels: Mapping[str, Any] = measured.get("duels", {})
        self._cores = cores
        steps = self._raw["loop"]["step_ms"]
        self._network = self._each(self._raw["forward_batch_8"])
        self._engine = steps["decode"] + steps["search"] + self._network

    def _each(self, rate: float) -> float:
        """Return the ms of CPU time that all cores have for each of so many a second."""
        return self._cores * 1000 / rate

    def many(self) -> Iterator[str]:
        window = self._ours["cold"]["clients"][MOST]
        used, client = sum(window["cpu_ms"].values()), _of_client(window)
        yield (
            f"- {MOST} clients: {window['rate']:.0f} searches a second cost {used:.1f} ms of CPU time each, and the "
            f"load generator {client:.1f}: together {(used + client) * window['rate'] / 1000:.2f} of {self._cores} "
            f"cores. Search worker {_cpu(window, 'search'):.1f} ms, decoding, network and index in it; web "
            f"{_cpu(window, 'web'):.1f}, Redis {_cpu(window, 'redis'):.1f}."
        )

    def litserve(self) -> Iterator[str]:
        """Say what LitServe's rate would leave for a search worker behind a queue, from windows in turn."""
        duel = self._duels.get("litserve")
        if not duel or duel["ratio"] >= 1:
            return
        ours, theirs = (sum(duel[side].values()) for side in ("our_cpu_ms", "their_cpu_ms"))
        rate, their_rate = (statistics.median(duel[side]) for side in ("ours", "theirs"))
        worker, around = _split(duel)
        left = self._each(their_rate) - around
        spare = left - self._engine
        verdict = f"{spare:.1f} ms for all that makes it a job" if spare > 0 else "less than the engine takes"
        yield (
            f"- In turn with LitServe: {rate:.0f} searches a second of {ours:.1f} ms of CPU time against "
            f"{their_rate:.0f} of {theirs:.1f} ms, with the same decoder, network and index. LitServe is one server "
            f"without a queue; Lookalike's web, Redis and other processes take {around:.1f} ms (HTTP, a record that "
            f"survives its worker, the message, the end of the job). At LitServe's rate {self._cores} cores would "
            f"leave {left:.1f} ms to the search worker; decoding, index and network in batches of 8 take "
            f"{self._engine:.1f} of it in a plain loop: {verdict}. The worker takes {worker:.1f}."
        )

    def rivals(self) -> Iterator[str]:
        for rival, name in (("sync_flask", "Flask"), ("plain_celery", "Celery")):
            duel = self._duels.get(rival)
            if not duel or duel["ratio"] >= TIMES_FASTER:
                continue
            theirs = statistics.median(duel["theirs"])
            budget, (worker, around) = self._each(TIMES_FASTER * theirs), _split(duel)
            client = _of_client(self._ours["cold"]["clients"][MOST])
            least = self._engine + around + client
            verdict = "more than that" if least > budget else f"which leaves {budget - least:.1f}"
            yield (
                f"- {TIMES_FASTER:g} times {name}'s {theirs:.0f} searches a second leave {budget:.1f} ms of CPU time "
                f"for a search on {self._cores} cores. Decoding, index and network at batch 8 take {self._engine:.1f} "
                f"(the network {self._network:.1f}), web, Redis and the others {around:.1f}, the load "
                f"generator {client:.1f}: {verdict}. The search worker takes {worker:.1f} instead of "
                f"{self._engine:.1f}."
            )

    def lone(self) -> Iterator[str]:
        window, loop = self._ours["cold"]["clients"]["1"], self._raw["loop"]["step_ms"]
        ours = sum(window["step_ms"].get(name, 0.0) for name in ENGINE_STEPS)
        yield (
            f"- One client waits {window['mean']:.1f} ms on average. Decoding, network and index take {ours:.1f} of "
            f"it, and {sum(loop.get(name, 0.0) for name in ENGINE_STEPS):.1f} in the raw loop, which never pauses: "
            "after some idle milliseconds caches and clock of this machine are cold. "
            f"{window['mean'] - ours:.1f} ms are HTTP, two queues, records and the change of threads between them. "
            f"A forward pass alone is {self._raw['forward_ms']['p50']:.1f} ms."
        )
        if slowest := window.get("slowest"):
            steps = {name: spent for name, spent in slowest["step_ms"].items() if name != "total"}
            rest = slowest["mean"] - sum(steps.values())
            told = ", ".join(f"{name} {spent:.1f}" for name, spent in steps.items() if spent >= 0.05)
            yield (
                f"- The slowest 5 % of these searches take {slowest['mean']:.1f} ms on average: {told}, and the rest "
                f"(HTTP, web, end of the job) {rest:.1f}."
            )
        lone = self._duels.get("lone", {})
        if (floor := lone.get("floor")) is not None:
            kept = max(0.0, OVERHEAD_MS - floor)
            yield (
                f"- The p95 of the raw loop, if it sleeps 10 ms before each search as a lone client's worker does, is "
                f"{floor:.1f} ms above a forward pass, without any server: of the goal's {OVERHEAD_MS:g} ms "
                f"{kept:.1f} are left for HTTP, web, Redis, two queues and the end of the job. Measured in turn, "
                f"Lookalike's p95 is {lone['difference']:.1f} ms above a forward pass."
            )

    def repeats(self) -> Iterator[str]:
        again, profiles = self._ours.get("repeats"), self._ours.get("profiles", {})
        if not again:
            return
        for clients in ("1", MOST):
            duel = self._duels.get(f"repeats_{clients}")
            if not duel or duel["ratio"] >= TIMES_REPEATED:
                continue
            known, cold = again[clients], statistics.median(duel["theirs"])
            wanted = TIMES_REPEATED * cold
            used = sum(known["cpu_ms"].values()) + _of_client(known)
            yield (
                f"- Repeats of {clients} client{'s' if clients != '1' else ''}: {statistics.median(duel['ours']):.0f} "
                f"a second, in turn with {cold:.0f} cold ones. A repeat costs {_cpu(known, 'web'):.1f} ms of web, "
                f"{_cpu(known, 'redis'):.2f} of Redis, and with the client {used:.1f} ms in all. {TIMES_REPEATED:g} "
                f"times the cold rate, {wanted:.0f} a second, would leave {1000 / wanted:.2f} ms of one core for each; "
                f"all {self._cores} cores, without any wait, would do {self._each(1) / used:.0f} a second. A cold "
                "search that becomes faster moves this goal away."
            )
            held = profiles.get(f"repeats_{clients}", {}).get("held_ms", {}).get("web")
            if held:
                told = ", ".join(f"{name} {spent:.2f}" for name, spent in held.items() if spent >= 0.05)
                yield f"  By py-spy web's interpreter is held, in ms of each: {told}; {sum(held.values()):.2f} in all."

    def bulk(self) -> Iterator[str]:
        bulk = self._ours.get("bulk")
        if not bulk:
            return
        rate, raw_rate = (statistics.fmean(bulk[name]) for name in ("rates", "raw_rates"))
        used = ", ".join(f"{name} {spent:.1f}" for name, spent in bulk["cpu_ms"].items() if spent >= 0.05)
        verdict = "reaches" if bulk["ratio"] >= BULK_SHARE else "does not reach"
        until_end = statistics.fmean(done["embedded"] / done["seconds"] for done in bulk["alone"])
        yield (
            f"- An import embeds {rate:.0f} images a second from request to last commit, the raw engine {raw_rate:.0f} "
            f"without reading a table, keeping a photo or writing an embedding; that {verdict} {BULK_SHARE:g} of it. "
            f"With the report of near-duplicates, which comes after the last commit, it is {until_end:.0f} a second, "
            f"and CPU time of an image in ms: {used}. {self._cores} cores have {self._each(until_end):.1f} in that "
            f"time; the raw engine takes at most {self._each(raw_rate):.1f}."
        )


def _cpu(window: Mapping[str, Any], part: str) -> float:
    return float(window["cpu_ms"].get(part, 0.0))


def _of_client(window: Mapping[str, Any]) -> float:
    """Return the ms of CPU time that the load generator takes for each search."""
    return float(1000 * window["cpu_share"] / window["rate"])


def _split(duel: Mapping[str, Any]) -> tuple[float, float]:
    """Return the ms of CPU time of the search worker, and of all other processes."""
    ours: Mapping[str, float] = duel["our_cpu_ms"]
    return ours.get("search", 0.0), sum(used for name, used in ours.items() if name != "search")
