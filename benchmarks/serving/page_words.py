"""The losses in words: what each goal would take, and what there is; every number is of the run."""

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.serving.figures import MOST, SHORT

ENGINE_STEPS = ("decode", "embed", "search")
CORES = 2
TIMES_FASTER, TIMES_REPEATED = 4, 15  # than Flask and Celery; than a cold search


def losses_in_words(encoders: Mapping[str, Any]) -> Iterator[str]:
    """Yield the section's lines; what was not measured is left out."""
    yield "## The losses in words"
    yield ""
    for backbone, measured in encoders.items():
        yield f"**{SHORT[backbone]}**"
        yield ""
        for told in (_many, _rivals, _lone, _repeats, _bulk):
            yield from told(measured)
        yield ""


def _cpu(window: Mapping[str, Any], *parts: str) -> float:
    return float(sum(window["cpu_ms"].get(part, 0.0) for part in parts))


def _many(measured: Mapping[str, Any]) -> Iterator[str]:
    window = measured["lookalike"]["cold"]["clients"][MOST]
    used, busy = sum(window["cpu_ms"].values()), sum(window["cpu_ms"].values()) * window["rate"] / 1000
    yield (
        f"- {MOST} clients: {window['rate']:.0f} searches a second cost {used:.1f} ms of CPU time each and keep "
        f"{busy:.2f} of {CORES} cores busy, so CPU time decides. Search worker {_cpu(window, 'search'):.1f} ms, "
        f"decoding, network and index in it; web {_cpu(window, 'web'):.1f}, Redis {_cpu(window, 'redis'):.1f}."
    )
    yield from _litserve(measured)


def _litserve(measured: Mapping[str, Any]) -> Iterator[str]:
    """Say what LitServe's rate would leave for a search worker behind a queue, from windows in turn."""
    duel, raw = measured.get("duels", {}).get("litserve"), measured["raw"]
    if not duel or duel["ratio"] >= 1:
        return
    ours, theirs = (sum(duel[side].values()) for side in ("our_cpu_ms", "their_cpu_ms"))
    rate, their_rate = (statistics.median(duel[side]) for side in ("ours", "theirs"))
    around = sum(used for name, used in duel["our_cpu_ms"].items() if name != "search")
    steps = raw["loop"]["step_ms"]
    engine = steps["decode"] + steps["search"] + CORES * 1000 / raw["forward_batch_8"]
    left = CORES * 1000 / their_rate - around
    verdict = f"{left - engine:.1f} ms for all that makes it a job" if left > engine else "less than the engine takes"
    yield (
        f"- In turn with LitServe: {rate:.0f} searches a second of {ours:.1f} ms of CPU time against {their_rate:.0f} "
        f"of {theirs:.1f} ms, with the same decoder, network and index. LitServe is one server without a queue; "
        f"Lookalike's web, Redis and other processes take {around:.1f} ms (HTTP, a record that survives its worker, "
        f"the message, the end of the job). At LitServe's rate {CORES} cores would leave {left:.1f} ms to the search "
        f"worker; decoding, index and network in batches of 8 take {engine:.1f} of it in a plain loop: {verdict}."
    )


def _rivals(measured: Mapping[str, Any]) -> Iterator[str]:
    ours = measured["lookalike"]["cold"]["clients"][MOST]["rate"]
    engine = CORES * 1000 / measured["raw"]["forward_batch_8"]
    for rival, name in (("sync_flask", "Flask"), ("plain_celery", "Celery")):
        theirs = measured["rivals"].get(rival, {}).get("clients", {}).get(MOST)
        if theirs and ours < TIMES_FASTER * theirs["rate"]:
            budget = CORES * 1000 / (TIMES_FASTER * theirs["rate"])
            yield (
                f"- {TIMES_FASTER} times {name}'s {theirs['rate']:.0f} searches a second leave {budget:.1f} ms of CPU "
                f"time for a search on {CORES} cores; the network alone takes {engine:.1f} of it at batch 8."
            )


def _lone(measured: Mapping[str, Any]) -> Iterator[str]:
    window, raw = measured["lookalike"]["cold"]["clients"]["1"], measured["raw"]["loop"]
    steps = window["step_ms"]
    ours = sum(steps.get(name, 0.0) for name in ENGINE_STEPS)
    loop = sum(raw["step_ms"].get(name, 0.0) for name in ENGINE_STEPS)
    yield (
        f"- One client waits {window['mean']:.1f} ms on average. Decoding, network and index take {ours:.1f} of it, "
        f"and {loop:.1f} in the raw loop, which never pauses: after some idle milliseconds caches and clock of this "
        f"machine are cold. {window['mean'] - ours:.1f} ms are HTTP, two queues, records and the change of threads "
        "between them. "
        f"A forward pass alone is {measured['raw']['forward_ms']['p50']:.1f} ms."
    )
    if paused := measured["raw"].get("paused"):
        floor = paused["p95"] - measured["raw"]["forward_ms"]["p50"]
        yield (
            f"- The p95 of that loop, if it sleeps 10 ms before each search as a lone client's worker does, is "
            f"{paused['p95']:.1f} ms: {floor:.1f} above a forward pass, without any server (p50 {paused['p50']:.1f})."
        )


def _repeats(measured: Mapping[str, Any]) -> Iterator[str]:
    ours = measured["lookalike"]
    again = ours.get("repeats")
    if not again:
        return
    for clients in ("1", MOST):
        cold, known = ours["cold"]["clients"][clients]["rate"], again[clients]
        needed = 1000 / (TIMES_REPEATED * cold)
        if known["rate"] < TIMES_REPEATED * cold:
            yield (
                f"- Repeats of {clients} client{'s' if clients != '1' else ''}: {known['rate']:.0f} a second, "
                f"{_cpu(known, 'web'):.1f} ms of web each, and {_cpu(known, 'redis'):.2f} of Redis. {TIMES_REPEATED} "
                f"times the cold rate would leave {needed:.2f} ms for all of HTTP, Flask, the photo's hash and the "
                "job's record in one process; a cold search that becomes faster moves this goal away."
            )
    held = ours.get("profile_of_repeats", {}).get("held_ms", {}).get("web")
    if held:
        total = sum(held.values())
        told = ", ".join(f"{name} {used / total:.0%}" for name, used in held.items() if used >= 0.03 * total)
        yield f"- What holds web's interpreter during repeats of one client, by py-spy: {told}."


def _bulk(measured: Mapping[str, Any]) -> Iterator[str]:
    bulk = measured["lookalike"].get("bulk")
    if bulk:
        yield (
            f"- An import embeds {bulk['rate']:.0f} images a second from request to last commit, the raw engine "
            f"{bulk['raw_rate']:.0f} without reading a table, keeping a photo or writing an embedding."
        )
