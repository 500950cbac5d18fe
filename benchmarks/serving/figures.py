"""The named figures of a run, and the goals that they are held against."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from benchmarks.serving.scale import CLIENTS

SHORT = {"resnet50": "resnet50", "tf_efficientnet_lite0": "lite0"}
MOST = str(max(CLIENTS))
RIVALS = ("litserve", "sync_flask", "plain_celery")

Figures = dict[str, float]


@dataclass(frozen=True)
class Goal:
    """A figure and what it shall be.

    Attributes:
        figure: its name; with `*` for each encoder's.
        limit: at least this much, or at most if `is_most`.
        text: what it says, in words.
    """

    figure: str
    limit: float
    text: str
    is_most: bool = False

    def is_reached(self, value: float) -> bool:
        """Whether a value is good enough."""
        return value <= self.limit if self.is_most else value >= self.limit


GOALS = (
    Goal("runtime_speedup_resnet50", 6, "the release's runtime against torch eager, images/s at batch 8"),
    Goal("end_to_end_ratio_resnet50", 0.70, "Lookalike against the raw engine, searches/s at 32 clients, cold"),
    Goal("end_to_end_ratio_lite0", 0.45, "Lookalike against the raw engine, searches/s at 32 clients, cold"),
    *(Goal(f"vs_litserve_{name}", 1, "Lookalike against LitServe at 32 clients, cold") for name in SHORT.values()),
    *(Goal(f"vs_sync_flask_{name}", 4, "Lookalike against synchronous Flask at 32 clients") for name in SHORT.values()),
    *(Goal(f"vs_plain_celery_{name}", 4, "Lookalike against plain Celery at 32 clients") for name in SHORT.values()),
    *(
        Goal(f"p95_overhead_ms_{name}", 15, "p95 of a lone client minus the median forward pass, ms", is_most=True)
        for name in SHORT.values()
    ),
    *(
        Goal(f"repeat_ratio_{name}", 15, "exact repeats against cold searches, both of 1 client")
        for name in SHORT.values()
    ),
    *(
        Goal(f"repeat_ratio_32_clients_{name}", 15, "exact repeats against cold searches, both of 32 clients")
        for name in SHORT.values()
    ),
    Goal("repeat_p50_ms", 5, "median of exact repeats of a lone client, ms, the slower encoder", is_most=True),
    *(
        Goal(f"bulk_ratio_{name}", 0.85, "import against the raw engine's batch rate, images to committed embeddings")
        for name in SHORT.values()
    ),
    Goal("similar_kept_lite0", 0.9, "of a fresh answer's items, what an answer to a photo compressed again holds"),
    Goal("bulk_search_p95_ratio", 2, "p95 of a lone client while an import runs against idle, the worse", is_most=True),
    Goal("cold_start_s", 5, "start of the search worker's process to its first answer, s, the slower", is_most=True),
    Goal("single_flight_forward_passes", 1, "forward passes of 100 identical uploads at once, the worse", is_most=True),
)


def encoder_figures(short: str, measured: Mapping[str, Any]) -> Figures:
    """Return the figures of one encoder; what was not measured is left out.

    Args:
        short: end of the figures' names.
        measured: of one encoder, as `benchmarks.serving.run` collects it.
    """
    raw, eager, ours = measured.get("raw"), measured.get("torch_eager"), measured.get("lookalike", {})
    figures: Figures = {}
    if raw:
        figures["raw_per_s"] = raw["loop"]["rate"]
        figures |= {"forward_ms": raw["forward_ms"]["p50"], "runtime_per_s": raw["forward_batch_8"]}
    if raw and eager:
        figures["runtime_speedup"] = raw["forward_batch_8"] / eager["eager_batch_8"]
        figures["runtime_speedup_over_channels_last"] = raw["forward_batch_8"] / eager["channels_last_batch_8"]
    if cold := ours.get("cold"):
        rate = cold["clients"][MOST]["rate"]
        figures["searches_per_s"] = rate
        if raw:
            figures["end_to_end_ratio"] = rate / raw["loop"]["rate"]
            figures["p95_overhead_ms"] = cold["clients"]["1"]["p95"] - raw["forward_ms"]["p50"]
        for rival in RIVALS:
            theirs = measured.get("rivals", {}).get(rival, {}).get("clients", {}).get(MOST, {}).get("rate", 0.0)
            if theirs > 0:
                figures[f"vs_{rival}"] = rate / theirs
        if again := ours.get("repeats"):
            figures["repeat_ratio"] = again["1"]["rate"] / cold["clients"]["1"]["rate"]
            figures["repeat_ratio_32_clients"] = again[MOST]["rate"] / rate
            figures["repeat_p50_ms"] = again["1"]["p50"]
        figures["cpu_ms_per_search"] = sum(cold["clients"][MOST]["cpu_ms"].values())
    figures |= _own_figures(measured) | _in_turn(measured.get("duels", {}))
    return {f"{name}_{short}": value for name, value in figures.items()}


def _in_turn(duels: Mapping[str, Any]) -> Figures:
    """Return what was measured in turn, which counts more than what was measured minutes apart."""
    names = {"raw": "end_to_end_ratio", "repeats_1": "repeat_ratio", f"repeats_{MOST}": "repeat_ratio_32_clients"}
    names |= {rival: f"vs_{rival}" for rival in RIVALS}
    figures = {figure: duels[name]["ratio"] for name, figure in names.items() if name in duels}
    return figures | ({"p95_overhead_ms": duels["lone"]["difference"]} if "lone" in duels else {})


def _own_figures(measured: Mapping[str, Any]) -> Figures:
    ours = measured.get("lookalike", {})
    figures: Figures = {}
    if bulk := ours.get("bulk"):
        figures |= {"bulk_per_s": fmean(bulk["rates"]), "raw_bulk_per_s": fmean(bulk["raw_rates"])}
        figures["bulk_ratio"] = bulk["ratio"]
        figures["bulk_search_p95_ratio"] = bulk["together"]["search"]["p95"] / bulk["idle"]["p95"]
    if hits := ours.get("cache_hits"):
        for kind, answered in (
            ("exact", "result_cache"),
            ("embedding", "embedding_cache"),
            ("similar", "similar_result_cache"),
        ):
            figures[f"{kind}_hit_p50_ms"] = hits[kind]["p50"]
            figures[f"{kind}_hit_rate"] = hits[kind]["answered_from"].get(answered, 0) / hits[kind]["searches"]
        figures["similar_kept"] = hits["similar_kept"]
    if flight := ours.get("single_flight"):
        figures["single_flight_forward_passes"] = flight["answered_from"].get("engine", 0)
    if many := ours.get("many_clients"):
        figures["many_clients_per_s"], figures["many_clients_p95_ms"] = many["rate"], many["p95"]
        figures["many_clients_healthz_p95_ms"] = many["healthz_p95"]
    if counters := ours.get("redis"):
        figures["redis_commands_per_search"] = counters["commands"]
        figures["redis_kib_per_search"] = (counters["bytes_in"] + counters["bytes_out"]) / 1024
    if start := ours.get("cold_start"):
        figures["cold_start_s"] = start["seconds"]
        figures["search_worker_peak_mib"] = max(start["peak_mib"], ours.get("busy_peak_mib", 0.0))
    return figures


def all_figures(encoders: Mapping[str, Any]) -> Figures:
    """Return every figure of a run, those without an encoder's name being the worse one of both encoders."""
    figures: Figures = {}
    for backbone, measured in encoders.items():
        figures |= encoder_figures(SHORT[backbone], measured)
    for name in ("repeat_p50_ms", "bulk_search_p95_ratio", "cold_start_s", "single_flight_forward_passes"):
        _worst(figures, name)
    for name in ("search_worker_peak_mib", "redis_commands_per_search", "redis_kib_per_search"):
        _worst(figures, name)
    shares = [
        window["cpu_share"]
        for measured in encoders.values()
        for windows in _loads(measured)
        for window in windows.values()
    ]
    if shares:
        figures["load_generator_cpu_share"] = max(shares)
    return figures


def _loads(measured: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the windows of each load, by number of clients."""
    ours = measured.get("lookalike", {})
    for system in (ours.get("cold", {}), *measured.get("rivals", {}).values()):
        yield system.get("clients", {})
    yield ours.get("repeats", {})


def _worst(figures: Figures, name: str) -> None:
    values = [figures[f"{name}_{short}"] for short in SHORT.values() if f"{name}_{short}" in figures]
    if values:
        figures[name] = max(values)
