"""How long the steps of searches take, counted by all search workers together.

Key (prefix `lookalike:`):
    searches:steps  hash  "{step}:{bound}" -> searches whose step took at most `bound` seconds, and longer than the
                          bound below; "{step}:seconds" -> seconds that it took in all of them.

Workers count in their memory and write what is new together with the sign that they are there, every two seconds: no
search costs a command for it. A worker that is killed takes the last two seconds with it.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import NamedTuple

from redis import Redis

STEPS_KEY = "lookalike:searches:steps"

# Seconds; a step that takes longer than the last but one counts under the last.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, float("inf"))
_SUM = "seconds"


class StepTimes:
    """Counts the steps of one process' searches until they are written. Threads share it."""

    def __init__(self) -> None:
        self._counts: dict[str, float] = {}
        self._lock = Lock()

    def add(self, timings_ms: Mapping[str, float]) -> None:
        """Count the steps of one search, in milliseconds."""
        with self._lock:
            for step, milliseconds in timings_ms.items():
                seconds = milliseconds / 1000
                bound = BOUNDS[bisect_left(BOUNDS, seconds)]
                for name, value in ((f"{step}:{bound}", 1), (f"{step}:{_SUM}", seconds)):
                    self._counts[name] = self._counts.get(name, 0) + value

    def take(self) -> dict[str, float]:
        """Return what was counted since it was last taken."""
        with self._lock:
            counts, self._counts = self._counts, {}
        return counts

    def put_back(self, counts: Mapping[str, float]) -> None:
        """Count what was taken once more, since it could not be written."""
        with self._lock:
            for name, value in counts.items():
                self._counts[name] = self._counts.get(name, 0) + value


def write_step_times(redis: Redis, counts: Mapping[str, float]) -> None:
    """Add what a process counted to what all of them have counted; a pipeline will do."""
    for name, value in counts.items():
        redis.hincrbyfloat(STEPS_KEY, name, value)


class StepHistogram(NamedTuple):
    """One step in all searches: (bound in seconds, searches that took at most so long) by bound, and all seconds."""

    step: str
    buckets: Sequence[tuple[float, float]]
    seconds: float


def histograms(counts: Mapping[bytes, bytes]) -> Iterator[StepHistogram]:
    """Yield the histogram of each step, of the hash as Redis has it.

    Bounds of another version of this program count under the next one of this.
    """
    steps: dict[str, dict[str, float]] = {}
    for name, value in counts.items():
        step, _, bound = name.decode().rpartition(":")
        steps.setdefault(step, {})[bound] = float(value)
    for step, found in sorted(steps.items()):
        seconds = found.pop(_SUM, 0.0)
        buckets = [
            (bound, sum(count for reached, count in found.items() if float(reached) <= bound)) for bound in BOUNDS
        ]
        yield StepHistogram(step, buckets, seconds)
