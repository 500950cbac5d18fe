"""What a filter lets through, as an approximate index needs it: rows, their vectors, and copies of their codes."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import ReferenceType, ref

import numpy as np

from worker.index.structure import Structure
from worker.index.vector_index import Rows, membership

# Fewer than a sixteenth of the rows are looked up, and their codes copied, faster than all rows are marked and asked.
FEW_SHARE = 16
# Of all filters that are remembered together.
MOST_COPIED_BYTES = 64 * 1024**2


class RowPlaces:
    """Where rows are in an index, and which vectors are theirs."""

    def __init__(self, rows: Rows, starts: Rows) -> None:
        """Args:
        rows: int64 (n,), ids, each once, in the order of their vectors.
        starts: int64 (vectors + 1,), where the rows of each vector begin.
        """
        self.rows = rows
        self.count = len(starts) - 1  # of vectors
        self.starts = starts if len(rows) > self.count else None  # None: a row's place is its vector's
        self._order = np.argsort(rows)  # places of rows by ascending id

    def of(self, rows: Rows) -> Rows:
        """Return the places of some rows, ascending; unknown ones are passed over."""
        if not len(self.rows):
            return np.empty(0, np.int64)
        wanted = np.unique(rows)
        found = np.searchsorted(self.rows, wanted, sorter=self._order).clip(max=len(self.rows) - 1)
        places = self._order[found]
        return np.sort(places[self.rows[places] == wanted])

    def vectors(self, places: Rows) -> Rows:
        """Return where rows at some places have their vectors."""
        return places if self.starts is None else np.searchsorted(self.starts, places, side="right") - 1


@dataclass(eq=False)
class Allowed:
    """What a filter lets through.

    Attributes:
        places: int64 (r,), where its rows are, ascending.
        positions: int64 (v,), the vectors that have such a row, ascending.
        index: all rows.
        codes: copied ones of `positions`; None where there is no copy.
    """

    places: Rows
    positions: Rows
    index: RowPlaces
    codes: Any = None

    @property
    def count(self) -> int:
        """How many vectors."""
        return len(self.positions)

    @cached_property
    def is_row(self) -> np.ndarray:
        """Which rows, bool (rows,)."""
        return _marked(self.places, len(self.index.rows))

    @cached_property
    def is_vector(self) -> np.ndarray:
        """Which vectors, bool (vectors,)."""
        return _marked(self.positions, self.index.count)


class Filters:
    """Remembers what filters let through, for as long as somebody has their rows. Threads share it."""

    def __init__(self, places: RowPlaces, structure: Structure) -> None:
        """Args:
        places: of the index.
        structure: with its codes.
        """
        self._places = places
        self._structure = structure
        self._known: dict[int, tuple[ReferenceType[Rows], Allowed | None]] = {}  # by the id of the filter's rows

    def get(self, allowed: Rows, scan_share: float) -> Allowed | None:
        """Return what a filter lets through; None where that is everything.

        It is remembered where the rows can't change, with a copy of their codes if these will be scanned.

        Args:
            allowed: int64 (m,), ids in any order; unknown ones are passed over.
            scan_share: of all vectors; of filters up to that, codes are scanned.
        """
        key, known = id(allowed), self._known
        remembered = known.get(key)
        if remembered is not None and remembered[0]() is allowed:
            return remembered[1]
        found = self._find(allowed)
        if not allowed.flags.writeable:
            if found is not None and found.count <= scan_share * self._places.count and self._has_room(found.count):
                found.codes = self._structure.copied(found.positions)
            known[key] = ref(allowed, lambda _: known.pop(key, None)), found
        return found

    def copied(self) -> list[int]:
        """Return how many codes are kept with each filter."""
        known = [found for _, found in list(self._known.values()) if found is not None]
        return [found.codes.ntotal for found in known if found.codes is not None]

    def __len__(self) -> int:
        """Return how many filters are remembered."""
        return len(self._known)

    def _has_room(self, count: int) -> bool:
        return self._structure.code_bytes * (sum(self.copied()) + count) <= MOST_COPIED_BYTES

    def _find(self, allowed: Rows) -> Allowed | None:
        rows = self._places.rows
        if len(allowed) * FEW_SHARE < len(rows):
            places = self._places.of(allowed)
        else:
            places = np.flatnonzero(membership(rows, allowed))
            if len(places) == len(rows):
                return None
        positions = self._places.vectors(places)
        return Allowed(places, positions if self._places.starts is None else np.unique(positions), self._places)


def _marked(places: Rows, total: int) -> np.ndarray:
    marks = np.zeros(total, bool)
    marks[places] = True
    return marks
