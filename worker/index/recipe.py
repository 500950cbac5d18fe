"""What an operator asks of an index: a recall, a memory budget, or FAISS's own words."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

# An exact search reads every number from memory: so many take 0.5 ms of an idle core, twice that beside a busy encoder.
# At four times as many (8,024 rows of 1280), a graph answers a lone client's search in 14 ms instead of 19
# (docs/decisions/0015-recall-targets-and-filters.md).
EXACT_NUMBERS = 2_000 * 1280
# Codes and lists can't be learned from fewer, and a recall not be measured.
FEWEST_ROWS = 1000


class RecallNotReached(ValueError):
    """No index that may be built finds enough; the message tells what was measured and what would reach it."""


@dataclass(frozen=True)
class IndexRecipe:
    """How an index is to be built. The same recipe gives another index when the rows have changed.

    Attributes:
        recall_target: recall@10 that it must reach on held-out rows; 1 means exact.
        memory_budget_bytes: what it may keep in memory; None: as much as it likes.
        factory: FAISS's description of the index; None leaves the choice of the kind.
    """

    recall_target: float = 1.0
    memory_budget_bytes: int | None = None
    factory: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.recall_target <= 1:
            raise ValueError(f"a recall target is above 0 and at most 1, not {self.recall_target}")
        if self.memory_budget_bytes is not None and self.memory_budget_bytes < 1:
            raise ValueError(f"a memory budget is positive, not {self.memory_budget_bytes}")

    @property
    def is_exact(self) -> bool:
        """Whether only exact search will do, however many rows there are."""
        return self.factory == "Flat" or (self.factory is None and self.recall_target == 1)

    def is_exact_for(self, rows: int, dim: int) -> bool:
        """Tell whether exact search is what this recipe means for so many rows of a length."""
        if self.is_exact or rows < FEWEST_ROWS:
            return True
        bytes_wanted = 4 * rows * dim
        fits = self.memory_budget_bytes is None or bytes_wanted <= self.memory_budget_bytes
        return self.factory is None and rows * dim <= EXACT_NUMBERS and fits

    @property
    def name(self) -> str:
        """What a release of this recipe is called by, beside its encoder: "flat", or one name for each recipe."""
        if self.is_exact:
            return "flat"
        text = json.dumps(self.to_dict(), sort_keys=True)
        return f"approximate-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


EXACT = IndexRecipe()
DEFAULT_TARGET = 0.99


def wished(recall_target: float | None, memory_budget_bytes: int | None, factory: str | None) -> IndexRecipe | None:
    """Return what an operator asks of an index; None where nothing is asked."""
    if recall_target is None and memory_budget_bytes is None and factory is None:
        return None
    return IndexRecipe(DEFAULT_TARGET if recall_target is None else recall_target, memory_budget_bytes, factory)


def fast_enough(rows: int, dim: int) -> IndexRecipe:
    """Return what is built where nothing is asked for: exact while that is fast enough, else of recall@10 0.99."""
    return EXACT if rows * dim <= EXACT_NUMBERS else IndexRecipe(DEFAULT_TARGET)
