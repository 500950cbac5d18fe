"""Near-duplicates: imported items that look nearly the same as another item of the catalogue."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from shared.catalogue import Catalogue
from shared.schemas import NearDuplicate
from shared.store import Store
from worker.groups import EQUAL_COSINE
from worker.imports.plan import Chunks, read_chunk
from worker.item_index import ItemIndex

ITEMS_AT_ONCE = 1024
MAX_PAIRS = 100
# Exact search of each image among all: about five minutes of two cores. An approximate index has no such limit.
MAX_MULTIPLICATIONS = 1e13


@dataclass
class NearDuplicates:
    """What was found.

    Attributes:
        known: items that could be compared; the others have no image in the index.
        count: items that have a near-duplicate.
        pairs: the first of them, each with the item that it is most like.
    """

    known: int = 0
    count: int = 0
    pairs: list[NearDuplicate] = field(default_factory=list)


class CannotCompare(Exception):
    """The index can't compare so many, or has nothing to compare with; the message tells why, and the remedy."""


def imported_items(job_id: str, catalogue: Catalogue, store: Store) -> Iterator[str]:
    """Yield the ids of the items that an import has brought, in the order of its file; a chunk is in memory at a time.

    Raises:
        FileNotFoundError: if the import has ended, and its files are gone.
    """
    chunks = Chunks(catalogue)
    for chunk in chunks.all(job_id):
        rows = read_chunk(store, job_id, chunk.number)
        left_out = chunks.left_out_lines(job_id, rows[0].line, rows[-1].line) if rows else set()
        yield from (row.item_id for row in rows if row.line not in left_out)


def find_near_duplicates(
    item_ids: Iterable[str], total: int, live_index: ItemIndex[Any], min_cosine: float, goes_on: Callable[[], bool]
) -> NearDuplicates | None:
    """Compare items with all others of the catalogue, by their most similar images.

    Args:
        item_ids: of the items.
        total: how many they are.
        live_index: in step with the catalogue.
        min_cosine: from which two items are near-duplicates; 1 means equal embeddings.
        goes_on: asked now and then.

    Returns:
        What was found; None where it was not to go on.

    Raises:
        CannotCompare: if the index is exact, and items and images are too many for it.
    """
    size, dim = len(live_index), live_index.dim
    if live_index.is_exact and total * size * dim > MAX_MULTIPLICATIONS:
        raise CannotCompare(
            f"The index compares each of {total:,} items with all of {size:,} images, which takes too long. Build a "
            "release with a recall target below 1."
        )
    threshold = min(min_cosine, EQUAL_COSINE)
    found = NearDuplicates()
    items = iter(item_ids)
    while page := list(islice(items, ITEMS_AT_ONCE)):
        owners, embeddings = live_index.images_of(page)
        best: dict[str, NearDuplicate] = {}
        for owner, other in zip(owners, live_index.nearest_others(owners, embeddings), strict=True):
            if other is not None and other[1] >= threshold and (owner not in best or other[1] > best[owner].score):
                best[owner] = NearDuplicate(item_id=owner, duplicate_of=other[0], score=round(other[1], 6))
        found.known += len(set(owners))
        found.count += len(best)
        in_order = (best[item_id] for item_id in page if item_id in best)
        found.pairs += islice(in_order, MAX_PAIRS - len(found.pairs))
        if not goes_on():
            return None
    return found
