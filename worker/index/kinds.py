"""The approximate kinds of index: FAISS's factory for a number of rows, what it takes in memory, what can be tuned."""

from collections.abc import Callable
from dataclasses import dataclass

# That vectors are projected to, where they are longer. Measured at recall 0.99: fewer need deeper re-ranking, more take
# longer to project (docs/decisions/0014-approximate-indexes.md).
NUMBERS = 192
ROW_BYTES = 16  # id, and place in the order of ids


@dataclass(frozen=True)
class Kind:
    """A kind of index.

    Attributes:
        name: in manifests and names of releases.
        factory: FAISS's description for n rows of a length.
        bytes_per_row: what stays in memory of one, for a length; measured ones are in the manifests.
        is_chosen: whether a builder that has the choice tries it; the others are slower and larger than one that it
            tries, and there for comparison.
    """

    name: str
    factory: Callable[[int, int], str]
    bytes_per_row: Callable[[int], int]
    is_chosen: bool = False

    def bytes_for(self, rows: int, dim: int) -> int:
        """Return about how much memory so many rows take, projection and centres of lists included."""
        centres = lists(rows) if "IVF" in self.factory(rows, dim) else 0
        return self.bytes_per_row(dim) * rows + 4 * min(dim, NUMBERS) * (dim + centres)


def lists(rows: int) -> int:
    """Return a number of lists for so many rows: about the root of it, times two or four; a power of two."""
    return max(1, min(1 << max(0, (rows // 64).bit_length() - 1), 1 << (rows.bit_length() // 2 + 2)))


def _projected(dim: int, numbers: int = NUMBERS) -> tuple[str, int]:
    """Return the projection to so many numbers as FAISS describes it, none for vectors that are not longer."""
    return (f"PCA{numbers},", numbers) if dim > numbers else ("", dim)


def _parts(dim: int) -> int:
    """Return in how many parts product quantisation cuts a vector: of two numbers each at least."""
    numbers = min(dim, NUMBERS)
    return next((parts for parts in (128, 64, 32, 16, 8, 4, 2) if numbers % parts == 0 and 2 * parts <= numbers), 1)


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "hnsw",
            # Bytes as they are, which are compared in half the time, need numbers that vary alike: PCAR turns them so.
            lambda _, dim: f"PCAR{NUMBERS},HNSW32_SQ8_direct_signed" if dim > NUMBERS else "HNSW32_SQ8",
            lambda dim: _projected(dim)[1] + 64 * 4 + 24 + ROW_BYTES,
            is_chosen=True,
        ),
        Kind("hnsw-flat", lambda *_: "HNSW32", lambda dim: 4 * dim + 64 * 4 + 24 + ROW_BYTES),
        Kind("ivf-flat", lambda rows, _: f"IVF{lists(rows)},Flat", lambda dim: 4 * dim + 8 + ROW_BYTES),
        Kind(
            "ivf-sq",
            lambda rows, dim: f"{_projected(dim)[0]}IVF{lists(rows)},SQ8",
            lambda dim: _projected(dim)[1] + 8 + ROW_BYTES,
            is_chosen=True,
        ),
        Kind(
            "ivf-sq-128",
            lambda rows, dim: f"{_projected(dim, 128)[0]}IVF{lists(rows)},SQ8",
            lambda dim: _projected(dim, 128)[1] + 8 + ROW_BYTES,
            is_chosen=True,
        ),
        Kind("ivf-pq", lambda rows, dim: f"IVF{lists(rows)},PQ{_parts(dim)}", lambda dim: _parts(dim) + 8 + ROW_BYTES),
        Kind(
            "opq-ivf-pq",
            lambda rows, dim: f"{_projected(dim)[0]}OPQ{_parts(dim)},IVF{lists(rows)},PQ{_parts(dim)}",
            lambda dim: _parts(dim) + 8 + ROW_BYTES,
            is_chosen=True,
        ),
        Kind(
            "opq-ivf-pq-fast",
            lambda rows, dim: f"{_projected(dim)[0]}OPQ{_parts(dim)},IVF{lists(rows)},PQ{_parts(dim)}x4fs",
            lambda dim: _parts(dim) // 2 + 8 + ROW_BYTES,
            is_chosen=True,
        ),
    )
}
