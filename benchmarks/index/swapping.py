"""Another base under searches of 32 threads: does one fail, or find rows of both?"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from threading import Event

from worker.index.flat_index import FlatIndex
from worker.index.segmented_index import SegmentedIndex
from worker.index.shared_searches import SharedSearches
from worker.index.vector_index import ReadableIndex, Vectors

THREADS, SWAPS, K = 32, 100, 10


@dataclass(frozen=True)
class Swapped:
    """What came of it.

    Attributes:
        searches: how many ended.
        failures: how many of them raised, found too few rows, or rows of both bases.
        swaps: how often the base changed meanwhile.
    """

    searches: int
    failures: int
    swaps: int


def swap(one: ReadableIndex, other: ReadableIndex, queries: Vectors) -> Swapped:
    """Search from many threads while a base takes the other's place again and again.

    Args:
        one: a base.
        other: another one, which has no row in common with it.
        queries: float32 (q, dim).
    """
    index = SegmentedIndex(one, FlatIndex(one.dim))
    shared, stopped = SharedSearches(index), Event()
    of_one, of_other = set(one.rows.tolist()), set(other.rows.tolist())

    def search(first: int) -> tuple[int, int]:
        searches = failures = 0
        while not stopped.is_set():
            number = (first + searches) % len(queries)
            searches += 1
            try:
                found = set(shared.search(queries[number : number + 1], K).rows[0].tolist())
            except Exception:  # noqa: BLE001  # whatever it is, it is a search that failed
                failures += 1
                continue
            failures += not (len(found) == K and (found <= of_one or found <= of_other))
        return searches, failures

    with ThreadPoolExecutor(THREADS) as pool:
        running = [pool.submit(search, first) for first in range(THREADS)]
        for _, base in zip(range(SWAPS), cycle((other, one)), strict=False):
            index.restart(base, FlatIndex(one.dim))
            stopped.wait(0.02)
        stopped.set()
        counts = [future.result() for future in running]
    return Swapped(sum(count for count, _ in counts), sum(failures for _, failures in counts), SWAPS)
