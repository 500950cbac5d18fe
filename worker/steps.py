"""The time that each step of a search takes."""

from datetime import UTC, datetime
from time import perf_counter


class Steps:
    """A stopwatch for the steps of one search, in milliseconds. One thread uses it."""

    def __init__(self, created_at: datetime) -> None:
        """Args:
        created_at: when the job was created; what passed since then is the step `queue`.
        """
        queue = max(0.0, (datetime.now(UTC) - created_at).total_seconds())
        self._last = perf_counter()
        self._created = self._last - queue
        self.timings_ms: dict[str, float] = {"queue": _milliseconds(queue)}

    def lap(self, name: str) -> None:
        """Note that everything since the last lap was this step."""
        now = perf_counter()
        self.timings_ms[name] = _milliseconds(now - self._last)
        self._last = now

    def split(self, name: str, seconds: float) -> None:
        """Note that so much of the time since the last lap was this step; the rest belongs to the next lap."""
        self.timings_ms[name] = _milliseconds(seconds)
        self._last += seconds

    def total(self) -> dict[str, float]:
        """Return all steps, and the time from the job's creation until now."""
        return {**self.timings_ms, "total": _milliseconds(perf_counter() - self._created)}


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
