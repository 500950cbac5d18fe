"""What an index is built with, and what a query is searched with: frozen, so that no search changes another's."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class BuildArguments:
    """What decides the form of an index; another one needs another build.

    Attributes:
        factory: FAISS's description, such as "PCA256,HNSW32_SQ8"; "Flat" is exact.
        ef_construction: how many neighbours a graph looks at for each new row; other kinds have no graph.
        seed: of the random numbers.
    """

    factory: str
    ef_construction: int = 100
    seed: int = 0

    @property
    def is_exact(self) -> bool:
        """Whether every row is compared with every query."""
        return self.factory == "Flat"


@dataclass(frozen=True)
class QueryArguments:
    """How thorough a search is.

    Attributes:
        effort: nprobe of lists, efSearch of a graph.
        rerank: candidates for each wanted row, whose scores are computed from the stored vectors; 0 takes order and
            scores as the codes give them.
    """

    effort: int
    rerank: int = 4

    def depth(self, k: int) -> int:
        """Return how many candidates to look for where k rows are wanted."""
        return depth(k, self.rerank)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class FilterPlan:
    """Which way a filtered search takes; measured when an index is built.

    Attributes:
        exact_rows: up to so many allowed rows, the stored vectors of all of them are compared with the query.
        scan_share: up to this share of all rows, the codes of all allowed rows are, and the best of them re-ranked;
            above it, graph or lists are searched as without a filter, for more candidates, of which the allowed ones
            stay; where these are too few, codes are scanned after all.
        rerank: candidates of a scan for each wanted row. Allowed rows may all be far from the query, where codes tell
            less.
    """

    exact_rows: int = 500
    scan_share: float = 0.3
    rerank: int = 16

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


FULL_PLAN = FilterPlan(exact_rows=2**62)  # compares all allowed rows, always


def depth(k: int, rerank: int) -> int:
    """Return how many candidates to look for where k rows are wanted."""
    return max(k, FEWEST) * rerank if rerank else k


FEWEST = 10  # wanted rows that arguments are tuned for: fewer are looked for as thoroughly
