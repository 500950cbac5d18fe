"""Figures of several repetitions as one."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.report import percentile


def latencies(milliseconds: Sequence[float]) -> dict[str, float]:
    """Return p50, p95, p99 and mean of latencies; all 0 where there are none."""
    if not milliseconds:
        return {"p50": 0.0, "p95": 0.0, "p99": 0.0, "mean": 0.0}
    return {
        "p50": statistics.median(milliseconds),
        "p95": percentile(milliseconds, 0.95),
        "p99": percentile(milliseconds, 0.99),
        "mean": statistics.fmean(milliseconds),
    }


def median_of(repetitions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one mapping whose numbers are the medians of those of all repetitions, at any depth.

    A number that some repetitions lack counts as 0 there, since that is what its absence means in a table of counts;
    what is no number is taken from the first.

    >>> median_of([{"rate": 1.0, "cpu": {"web": 2.0}}, {"rate": 3.0, "cpu": {}}, {"rate": 2.0, "cpu": {"web": 1.0}}])
    {'rate': 2.0, 'cpu': {'web': 1.0}}
    """
    result: dict[str, Any] = {}
    for name in dict.fromkeys(name for repetition in repetitions for name in repetition):
        values = [repetition[name] for repetition in repetitions if name in repetition]
        if isinstance(values[0], Mapping):
            result[name] = median_of([repetition.get(name, {}) for repetition in repetitions])
        elif isinstance(values[0], int | float) and not isinstance(values[0], bool):
            numbers = [repetition.get(name, 0) for repetition in repetitions]
            result[name] = statistics.median(numbers)
        else:
            result[name] = values[0]
    return result


def summary(windows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the medians of windows, and the rate of each, so that a reader sees how far they lie apart."""
    return {**median_of(windows), "rates": [window["rate"] for window in windows]}


def name_value_lines(figures: Mapping[str, float | int]) -> list[str]:
    """Return one `name: value` line per figure, floats with four significant digits.

    >>> name_value_lines({"cold_start_s": 3.14159, "single_flight_forward_passes": 1, "searches": 12345.6})
    ['cold_start_s: 3.142', 'single_flight_forward_passes: 1', 'searches: 12346']
    """
    return [f"{name}: {_shown(value)}" for name, value in figures.items()]


def _shown(value: float | int) -> str:
    if isinstance(value, int):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.4g}"
