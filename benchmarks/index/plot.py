"""The picture of a run: recall and latency of each engine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

OURS, FLAT = "#c8452f", "#444444"
RIVALS = {"hnswlib": "#3b78a8", "usearch f32": "#7a9e7e", "usearch f16": "#4d7a52", "usearch i8": "#b7cdb9"}


def draw(measured: Mapping[str, Any], path: Path) -> None:
    """Write the picture.

    Args:
        measured: what `Run.measure` returns.
        path: .png or .svg file.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5.5))
    _curve(axes, measured["curve"], f"Lookalike, {measured['chosen']['factory']}", OURS)
    for name, rival in measured["rivals"].items():
        _curve(axes, rival["points"], name, RIVALS[name])
    for kind, told in measured["kinds"].items():
        if "photos" in told:
            point = told["photos"]
            axes.plot(point["p50_ms"], 1 - point["recall"] + 1e-4, "x", color=OURS)
            axes.annotate(
                kind,
                (point["p50_ms"], 1 - point["recall"] + 1e-4),
                fontsize=8,
                xytext=(4, 4),
                textcoords="offset points",
            )
    flat = measured["exact"]["faiss"]["p50_ms"]
    axes.axvline(flat, color=FLAT, linestyle=":", label=f"FAISS Flat, {flat:.0f} ms")
    axes.axhline(0.01, color="#999999", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.invert_yaxis()
    ticks = [0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001]
    axes.set_yticks(ticks, [f"{1 - miss:.3f}" for miss in ticks])
    axes.set_xlabel("ms of one search, median")
    axes.set_ylabel("recall@10")
    data = measured["data"]
    axes.set_title(f"{data['rows']:,} vectors of {data['dim']} numbers, one thread: left and up is better")
    axes.legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _curve(axes: Any, points: list[dict[str, Any]], label: str, colour: str) -> None:
    # A recall of 1 has no place on a logarithmic axis of what is missing.
    axes.plot(
        [point["p50_ms"] for point in points],
        [1 - point["recall"] + 1e-4 for point in points],
        "o-",
        label=label,
        color=colour,
        markersize=4,
    )
