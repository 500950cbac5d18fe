"""What results tell of images: read once, dropped when the item changes, never kept when it may be old."""

from collections.abc import Sequence

from shared.catalogue import HitRow
from worker.hit_cache import Hit, HitCache


class Titles:
    """A table of items with two rows each; counts what is read of it."""

    def __init__(self) -> None:
        self.titles = {f"i{number}": "old" for number in range(10)}
        self.reads: list[list[int]] = []
        self.meanwhile = lambda: None

    def read(self, rows: Sequence[int]) -> dict[int, Hit]:
        self.reads.append(list(rows))
        found = {
            row: (HitRow(f"i{row // 2}", row % 2, self.titles[f"i{row // 2}"], {}), f"/{row}")
            for row in rows
            if f"i{row // 2}" in self.titles
        }
        self.meanwhile()
        return found


def titles_of(hits: dict[int, Hit]) -> dict[int, str]:
    return {row: hit.title for row, (hit, _) in hits.items()}


def test_only_what_is_not_known_is_read_and_gone_rows_are_left_out() -> None:
    table = Titles()
    cache = HitCache(table.read)
    assert titles_of(cache.get([1, 3, 99])) == {1: "old", 3: "old"}
    assert titles_of(cache.get([3, 4, 1])) == {1: "old", 3: "old", 4: "old"}
    assert cache.get([4]) == table.read([4])
    assert cache.get([]) == {}
    assert table.reads == [[1, 3, 99], [4], [4]]


def test_a_changed_item_is_read_again_with_all_its_rows_and_others_are_not() -> None:
    table = Titles()
    cache = HitCache(table.read)
    cache.get([2, 3, 4])
    table.titles["i1"] = "new"
    cache.forget(["i1", "nobody"])
    assert titles_of(cache.get([2, 3, 4])) == {2: "new", 3: "new", 4: "old"}
    assert table.reads[1:] == [[2, 3]]
    del table.titles["i2"]
    cache.clear()
    assert titles_of(cache.get([2, 4])) == {2: "new"}


def test_a_row_that_was_read_just_before_a_change_was_applied_is_not_kept() -> None:
    table = Titles()
    cache = HitCache(table.read)

    def change() -> None:
        table.meanwhile = lambda: None
        table.titles["i0"] = "new"
        cache.forget(["i0"])

    table.meanwhile = change
    assert titles_of(cache.get([0])) == {0: "old"}  # as it was when this search read it
    assert titles_of(cache.get([0])) == {0: "new"}


def test_it_keeps_no_more_than_it_may_the_oldest_go_first() -> None:
    table = Titles()
    cache = HitCache(table.read, max_rows=3)
    cache.get([0, 1, 2])
    cache.get([3])
    assert titles_of(cache.get([1, 2, 3])) == {1: "old", 2: "old", 3: "old"}
    assert table.reads == [[0, 1, 2], [3]]
    cache.get([0])
    assert table.reads[2:] == [[0]]
    cache.forget(["i0", "i1"])
    assert set(cache.get([0, 1, 2, 3])) == {0, 1, 2, 3}
    assert table.reads[3:] == [[0, 1, 2, 3]]


def test_what_it_keeps_is_bounded_by_its_size_as_well() -> None:
    table = Titles()
    table.titles = {f"i{number}": "x" * 10_000 for number in range(10)}
    cache = HitCache(table.read, max_bytes=50_000)
    cache.get(range(20))
    table.reads.clear()
    assert len(cache.get(range(16, 20))) == 4
    assert table.reads == [], "the newest four are kept"
    cache.get([0])
    assert table.reads == [[0]]
    cache.forget(["i8", "i9", "i0"])
    table.titles = dict.fromkeys(table.titles, "short")
    cache.get(range(20))
    cache.get(range(20))
    assert table.reads[1:] == [list(range(20))], "what was dropped counts no more"
