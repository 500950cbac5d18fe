"""The page of a run: what was measured, in tables, and the defaults that follow."""

from collections.abc import Mapping
from typing import Any

from benchmarks.report import heading
from worker.index.recipe import EXACT_NUMBERS

GOALS = {
    "recall_at_10": (">=", 0.99),
    "speedup_vs_flat": (">=", 40),
    "vs_usearch": (">=", 1),
    "vs_hnswlib": (">=", 1),
    "resident_ratio": ("<=", 0.3),
    "load_s": ("<=", 0.5),
    "swap_failures": ("<=", 0),
    "worst_filtered_recall": (">=", 0.98),
    "worst_filtered_slowdown": ("<=", 3),
}
# Of a million rows and more, whose recall target is lower: the other goals are those of the default run.
LARGE_GOALS = {
    "million_recall_at_10": (">=", 0.95),
    "million_p50_ms": ("<=", 5),
    "million_bytes_per_vector": ("<=", 200),
}


LARGER = """## Larger

`make bench-index N=1000000` writes [a million vectors](index-1000000.md), `N=10000000` [what ten million would
take](index-ten-million.md), continued from one and two million.
"""


def page(measured: Mapping[str, Any], named: Mapping[str, float], name: str) -> str:
    """Return the page.

    Args:
        measured: what `Run.measure` returns.
        named: its figures.
        name: of the picture.
    """
    parts = [_head(measured["data"]), _figures(named), f"![Recall and latency](../images/{name}.png)\n"]
    parts += [_kinds(measured), _filters(measured["filters"]), _defaults(), LARGER]
    return "\n".join(parts)


def _head(data: Mapping[str, Any]) -> str:
    dimension = "\n".join(f"| {where} | {value:.1f} |" for where, value in data["dimension"].items())
    rows, queries, real = f"{data['rows']:,}", f"{data['queries']:,}", f"{data['real_rows']:,}"
    return f"""{heading("Kinds of index", "benchmarks.index")}
{rows} vectors of {data["dim"]} numbers, searched one query at a time by one thread, with {queries} photos that are in
no index. Each latency is the least of three rounds. Recall is by exact scores in single precision.

**Vectors.** {real} {data["source"]}, each embedded twice by the default encoder (whole, and the middle 70 %), rotated
to the {data["dim"]} directions in which they extend most: {data["energy"]:.2%} of their squared length.
Grown by vectors that lie among {data["neighbours"]} neighbours of a real one (`benchmarks/index/growth.py`).
Intrinsic dimension by maximum likelihood (Levina and Bickel), 20 neighbours, seen from:

| from | dimension |
|---|---|
{dimension}

Rows that grew from one photo crowd around it, so seen from them the dimension falls; seen from the photos that search,
it stays what it was or rises.
"""


def _figures(named: Mapping[str, float]) -> str:
    lines = ["## Figures", "", "| figure | value | goal |", "|---|---|---|"]
    goals = LARGE_GOALS if LARGE_GOALS.keys() & named.keys() else GOALS
    for name, value in named.items():
        goal = ""
        if name in goals:
            sign, limit = goals[name]
            is_met = value >= limit if sign == ">=" else value <= limit
            goal = f"{sign} {limit:g}: {'met' if is_met else 'missed'}"
        lines.append(f"| {name} | {value:.4g} | {goal} |")
    return "\n".join([*lines, ""])


def _kinds(measured: Mapping[str, Any]) -> str:
    photos = measured["data"]["tuning_queries"]
    lines = [
        "## Kinds, and other libraries",
        "",
        f"Chosen for {measured['data']['recipe']}: {measured['chosen']['factory']}.",
        "",
        f"Ours are tuned by the builder with {photos} photos, then asked with others.",
    ]
    if measured["rivals"]:
        lines += [
            "The rivals have the fastest setting that reaches 0.99 with the photos that are asked. `vs_usearch` and",
            "`vs_hnswlib` come from rounds in turn with ours.",
        ]
    lines += [
        "",
        "| index | setting | recall@10 | p50 ms | p95 ms | bytes a row | build s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, point in (("FAISS Flat", measured["exact"]["faiss"]), ("our exact index", measured["exact"]["own"])):
        size = 4 * measured["data"]["dim"]
        lines.append(_row(name, point["setting"], point, f"{size}", ""))
    for kind, told in measured["kinds"].items():
        if "refused" in told:
            lines.append(f"| {kind}: {told['factory']} | does not reach 0.99 | | | | | |")
            continue
        arguments = ", ".join(f"{name} {value}" for name, value in told["arguments"].items())
        sizes = told["measured"]
        name = f"{kind}: {told['factory']}"
        lines.append(
            _row(name, arguments, told["photos"], f"{sizes['bytes_per_row']:.0f}", f"{sizes['build_seconds']:.0f}")
        )
    for name, rival in measured["rivals"].items():
        best = rival["best"] or max(rival["points"], key=lambda point: point["recall"])
        setting = best["setting"] + ("" if rival["best"] else " (0.99 is not reached)")
        lines.append(_row(name, setting, best, "", f"{rival['build_seconds']:.0f}"))
    return "\n".join([*lines, ""])


def _row(name: str, setting: str, point: Mapping[str, Any], size: str, seconds: str) -> str:
    cells = f"{point['recall']:.4f} | {point['p50_ms']:.3f} | {point['p95_ms']:.3f}"
    return f"| {name} | {setting} | {cells} | {size} | {seconds} |"


def _filters(table: list[dict[str, Any]]) -> str:
    lines = [
        "## Filters",
        "",
        "`at random`: rows drawn by chance. `alike`: the rows nearest to one of them, as the items of a category are.",
        "",
        "Without a filter: the same photos, just before.",
        "",
        "| allowed | which | recall@10 | p50 ms | p95 ms | p50 ms without a filter | times |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in table:
        cells = f"{row['recall']:.4f} | {row['p50_ms']:.3f} | {row['p95_ms']:.3f} | {row['plain_ms']:.3f}"
        cells += f" | {row['p50_ms'] / row['plain_ms']:.2f}"
        lines.append(f"| {row['share']:.1%} | {row['how']} | {cells} |")
    return "\n".join([*lines, ""])


def _defaults() -> str:
    images = f"{EXACT_NUMBERS // 1280:,}"
    return f"""## Defaults

Without options `python -m worker.build_release` builds the exact index for up to {EXACT_NUMBERS:,} numbers
({images} images of 1280), and for more the first of `hnsw`, `ivf-sq`, `opq-ivf-pq`, `opq-ivf-pq-fast` that fits the
memory budget and reaches recall@10 0.99 ([operations](../operations.md#choosing-an-index)).
"""
