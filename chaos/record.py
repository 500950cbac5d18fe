"""What came of one experiment."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Record:
    """Figures of an experiment, and the promises that it found broken.

    Attributes:
        name: of the experiment.
        done: what was done, in a sentence.
        checked: what had to hold.
        accepted: jobs that were answered with an id.
        finished: of these, those that ended.
        failed: of these, those that ended as failed, by code.
        told: of these, those that the client was told are gone (`job_not_found`), where that is what was promised.
        lost: accepted jobs that neither ended nor were told to be gone, rows that were reported done and are not there,
            and webhooks that never came.
        doubled: jobs that showed two different outcomes, and webhooks that came under two ids.
        recovery_s: longest time from the end of a fault to the answer to the first new search; None: no fault ended.
        unhandled: exceptions in the logs that nobody had foreseen.
        figures: what else was counted.
        broken: what did not hold, a sentence each.
        skipped: why it could not be done here; empty if it was done.
        seconds: how long it took.
        minutes: of a soak, what was measured in each.
    """

    name: str
    done: str
    checked: str
    accepted: int = 0
    finished: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    told: int = 0
    lost: int = 0
    doubled: int = 0
    recovery_s: float | None = None
    unhandled: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    skipped: str = ""
    seconds: float = 0.0
    minutes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether every promise held."""
        return not (self.broken or self.lost or self.doubled)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "holds": self.holds}
