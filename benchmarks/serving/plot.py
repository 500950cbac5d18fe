"""The picture of a run: searches a second of all systems, and where the time of a search goes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.serving.figures import MOST, SHORT
from benchmarks.serving.scale import CLIENTS

SYSTEMS = {
    "raw": ("raw engine", "#444444"),
    "lookalike": ("Lookalike", "#c8452f"),
    "litserve": ("LitServe", "#3b78a8"),
    "sync_flask": ("Flask + torch", "#8f8f8f"),
    "plain_celery": ("Celery + torch", "#bdbdbd"),
}
PARTS = {
    "web": "#e0a458",
    "redis": "#7a9e7e",
    "search": "#c8452f",
    "bulk": "#9d8ec7",
    "callbacks": "#6a6a6a",
    "beat": "#b0b0b0",
}
STEPS = ("queue", "refresh", "decode", "embed", "batch", "search", "hits")
STEP_COLOURS = ("#e0a458", "#8f8f8f", "#7a9e7e", "#c8452f", "#d98873", "#3b78a8", "#9d8ec7", "#d0d0d0")


def draw(encoders: Mapping[str, Any], path: Path) -> None:
    """Write the picture.

    Args:
        encoders: figures by encoder, as `benchmarks.serving.run` collects them.
        path: .png or .svg file.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, grid = pyplot.subplots(len(encoders), 3, figsize=(15, 3.9 * len(encoders)), squeeze=False)
    for row, (backbone, measured) in zip(grid, encoders.items(), strict=True):
        _rates(row[0], SHORT[backbone], measured)
        cold = measured.get("lookalike", {}).get("cold", {}).get("clients", {})
        if cold:
            alone, many = cold["1"], cold[MOST]
            _stacked(row[1], f"{SHORT[backbone]}: ms of one search, 1 client", *_steps(alone))
            names, values = zip(*((name, many["cpu_ms"].get(name, 0.0)) for name in PARTS), strict=True)
            _stacked(
                row[2], f"{SHORT[backbone]}: CPU ms per search, {MOST} clients", names, values, tuple(PARTS.values())
            )
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def rates(measured: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return searches a second of each measured system by number of clients; the raw engine has none, so it repeats."""
    found: dict[str, list[float]] = {}
    if "raw" in measured:
        found["raw"] = [measured["raw"]["loop"]["rate"]] * len(CLIENTS)
    systems = {"lookalike": measured.get("lookalike", {}).get("cold"), **measured.get("rivals", {})}
    for name, system in systems.items():
        if system:
            found[name] = [system["clients"][str(count)]["rate"] for count in CLIENTS]
    return found


def _rates(axes: Any, short: str, measured: Mapping[str, Any]) -> None:
    found = rates(measured)
    width = 0.8 / max(1, len(found))
    for position, (name, values) in enumerate(found.items()):
        label, colour = SYSTEMS[name]
        places = [group + (position - (len(found) - 1) / 2) * width for group in range(len(CLIENTS))]
        bars = axes.bar(places, values, width, label=label, color=colour)
        axes.bar_label(bars, fmt="%.0f", fontsize=7)
    axes.set_xticks(range(len(CLIENTS)), [str(count) for count in CLIENTS])
    axes.set_xlabel("clients (the raw engine has none)")
    axes.set_title(f"{short}: searches a second")
    axes.margins(y=0.35)  # room for the legend
    axes.legend(fontsize=8, ncols=3, loc="upper left", frameon=False)


def _steps(window: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[float, ...], tuple[str, ...]]:
    steps = {name: window["step_ms"].get(name, 0.0) for name in STEPS}
    rest = max(0.0, window["mean"] - sum(steps.values()))
    return (*STEPS, "end of job, web, HTTP"), (*steps.values(), rest), STEP_COLOURS


def _stacked(axes: Any, title: str, names: Any, values: Any, colours: Any) -> None:
    left = 0.0
    for name, value, colour in zip(names, values, colours, strict=True):
        if value >= 0.01:
            axes.barh([0], [value], left=left, color=colour, label=f"{name} {value:.1f}", height=0.5)
        left += value
    axes.set_yticks([])
    axes.set_ylim(-1.6, 0.5)
    axes.set_title(f"{title}: {left:.1f}")
    axes.legend(fontsize=8, ncols=3, loc="lower center", frameon=False)
