"""Histograms of the steps of searches: counted in a process, added up, read back."""

import random
from collections.abc import Mapping

from shared.step_times import BOUNDS, StepTimes, histograms


def as_stored(counts: Mapping[str, float]) -> dict[bytes, bytes]:
    return {name.encode(): repr(value).encode() for name, value in counts.items()}


def test_buckets_are_those_of_a_loop_over_all_searches() -> None:
    draw = random.Random(7)
    searches = [
        {"decode": draw.expovariate(1 / 20), "total": 10 ** draw.uniform(-1, 5)} for _ in range(500)
    ]  # milliseconds, up to 100 s
    times = StepTimes()
    for timings in searches:
        times.add(timings)
    found = list(histograms(as_stored(times.take())))
    assert [histogram.step for histogram in found] == ["decode", "total"]
    for histogram in found:
        seconds = [timings[histogram.step] / 1000 for timings in searches]
        expected = [(bound, sum(value <= bound for value in seconds)) for bound in BOUNDS]
        assert list(histogram.buckets) == expected
        assert dict(histogram.buckets)[float("inf")] == 500
        assert abs(histogram.seconds - sum(seconds)) < 1e-6


def test_a_step_at_a_bound_counts_under_it() -> None:
    times = StepTimes()
    times.add({"embed": BOUNDS[1] * 1000})
    (histogram,) = histograms(as_stored(times.take()))
    assert [count for _, count in histogram.buckets[:3]] == [0, 1, 1]


def test_what_is_taken_is_gone_until_it_is_put_back() -> None:
    times = StepTimes()
    times.add({"embed": 3.0})
    taken = times.take()
    assert times.take() == {}
    times.add({"embed": 3.0})
    times.put_back(taken)
    assert times.take() == {"embed:0.005": 2, "embed:seconds": 0.006}


def test_counts_under_bounds_of_another_version_are_not_lost() -> None:
    (histogram,) = histograms({b"embed:0.003": b"4", b"embed:inf": b"1", b"embed:seconds": b"70.5"})
    assert dict(histogram.buckets)[0.0025] == 0
    assert dict(histogram.buckets)[0.005] == 4
    assert histogram.buckets[-1][1] == 5
    assert histogram.seconds == 70.5
