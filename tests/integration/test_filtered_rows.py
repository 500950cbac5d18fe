"""The rows that a filter lets through, on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import event

from shared.attributes import AttributeValue
from shared.catalogue import Catalogue
from shared.catalogue_change import ImageRef, ItemChange
from shared.errors import UnknownFilterField
from worker.filtered_rows import KEY_ROWS, FilteredRows
from worker.index.vector_index import Rows

RED = {"colour": "red"}


def put(catalogue: Catalogue, *items: tuple[str, AttributeValue]) -> None:
    with catalogue.change() as change:
        change.put(
            [ItemChange(name, "", {"colour": colour}, [ImageRef(name * 64, "image/jpeg")]) for name, colour in items]
        )


def names(catalogue: Catalogue, rows: Rows) -> list[str]:
    return sorted(row.item_id for row, _ in catalogue.hit_rows(rows.tolist()).values())


@contextmanager
def statements(catalogue: Catalogue) -> Iterator[list[str]]:
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    event.listen(catalogue.engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(catalogue.engine, "before_cursor_execute", note)


def test_a_filter_is_read_once_for_each_state_of_the_catalogue(catalogue: Catalogue) -> None:
    put(catalogue, ("a", "red"), ("b", "blue"), ("c", "red"))
    filtered = FilteredRows(catalogue)
    version = catalogue.state().seq
    first = filtered.get(RED, version)
    assert names(catalogue, first) == ["a", "c"]
    with statements(catalogue) as asked:
        assert filtered.get({"colour": "red"}, version) is first
    assert asked == []
    put(catalogue, ("b", "red"))
    assert names(catalogue, filtered.get(RED, catalogue.state().seq)) == ["a", "b", "c"]


def test_nobody_can_change_what_others_get(catalogue: Catalogue) -> None:
    put(catalogue, ("a", "red"))
    rows = FilteredRows(catalogue).get(RED, 1)
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 7


def test_what_no_item_has_any_more_is_told(catalogue: Catalogue) -> None:
    put(catalogue, ("a", "red"))
    with pytest.raises(UnknownFilterField):
        FilteredRows(catalogue).get({"size": 3}, 1)


def test_it_keeps_within_its_bounds(catalogue: Catalogue) -> None:
    put(catalogue, ("a", "red"), ("b", "blue"), ("c", "red"))
    filtered = FilteredRows(catalogue, max_rows=2 * KEY_ROWS + 3)
    kept = filtered.get(RED, 1)
    assert filtered.get({"colour": "blue"}, 1) is filtered.get({"colour": "blue"}, 1)
    assert filtered.get(RED, 1) is kept
    filtered.get({"colour": "green"}, 1)  # no row, but the entry itself counts, and pushes out the oldest
    assert filtered.get({"colour": "blue"}, 1) is not None
    assert filtered.get(RED, 1) is not kept
    small = FilteredRows(catalogue, max_rows=KEY_ROWS)
    assert names(catalogue, small.get(RED, 1)) == ["a", "c"]
