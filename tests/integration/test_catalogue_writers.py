"""Many writers at once, in threads and in processes: changes become visible one after the other, in order."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import event, select

from shared.catalogue import Catalogue
from shared.catalogue_change import ImageRef, ItemChange
from shared.database import connect_database
from shared.tables import ItemRow

ROOT = Path(__file__).parent.parent.parent
WRITERS, CHANGES = 2, 40
ENCODER = "none"
# Says that it is ready and begins when it is told to, so that all write at the same time.
SCRIPT = """
import sys
from tests.integration.test_catalogue_writers import write
print("ready", flush=True)
input()
write(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
"""
Writing = Callable[[str], AbstractContextManager[Callable[[], bool]]]


def write(url: str, writer: int, changes: int) -> None:
    """Make one new item a change."""
    engine = connect_database(url)
    catalogue = Catalogue(engine)
    for number in range(changes):
        with catalogue.change() as change:
            change.put([ItemChange(f"w{writer}-{number:03d}", f"version {number}", {"writer": writer}, None)])
    engine.dispose()


@contextmanager
def writing_threads(url: str) -> Iterator[Callable[[], bool]]:
    with ThreadPoolExecutor(WRITERS) as pool:
        futures = [pool.submit(write, url, writer, CHANGES) for writer in range(WRITERS)]
        yield lambda: all(future.done() for future in futures)
        for future in futures:
            future.result()


@contextmanager
def writing_processes(url: str) -> Iterator[Callable[[], bool]]:
    commands = [[sys.executable, "-c", SCRIPT, url, str(writer), str(CHANGES)] for writer in range(WRITERS)]
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(command, cwd=ROOT, text=True, stdin=pipe, stdout=pipe, stderr=pipe) for command in commands
    ]
    try:
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        yield lambda: all(process.poll() is not None for process in processes)
        for process in processes:
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("writing", [writing_threads, writing_processes], ids=["threads", "processes"])
def test_a_reader_misses_no_change_and_sees_them_in_order(
    catalogue: Catalogue, database_url: str, writing: Writing
) -> None:
    seen: list[str] = []
    seq = 0
    with writing(database_url) as has_ended:
        while True:
            ended = has_ended()
            state = catalogue.state()
            assert state.seq >= seq
            found = [item.item_id for items in catalogue.changed_items(ENCODER, seq, state.seq) for item in items]
            # Each change makes exactly one item: every number up to the one that is seen has its item.
            assert len(found) == state.seq - seq, f"between {seq} and {state.seq}: {found}"
            seen += found
            seq = state.seq
            if ended:
                break
    assert seq == WRITERS * CHANGES
    for writer in range(WRITERS):
        own = [item_id for item_id in seen if item_id.startswith(f"w{writer}-")]
        assert own == [f"w{writer}-{number:03d}" for number in range(CHANGES)]


def test_numbers_are_given_in_the_order_of_commits_without_gap_or_repeat(
    catalogue: Catalogue, database_url: str
) -> None:
    with writing_threads(database_url):
        pass
    with catalogue.engine.connect() as connection:
        numbers = connection.execute(select(ItemRow.seq).order_by(ItemRow.seq)).scalars().all()
    assert numbers == list(range(1, WRITERS * CHANGES + 1))
    assert catalogue.attribute_types() == {"writer": "number"}


def test_a_change_waits_until_the_one_before_has_ended(catalogue: Catalogue) -> None:
    entered, order = Event(), []

    def second() -> None:
        entered.wait()
        with catalogue.change() as change:
            order.append("second")
            change.put([ItemChange("a", "second", {}, None)])

    with ThreadPoolExecutor(1) as pool:
        with catalogue.change() as change:
            future = pool.submit(second)
            entered.set()
            change.put([ItemChange("a", "first", {}, None), ItemChange("b", "", {}, None)])
            assert not wait([future], timeout=0.3).done
            assert catalogue.page(10, None) == [], "readers don't wait, and see nothing of it yet"
            order.append("first")
        future.result(timeout=60)
    assert order == ["first", "second"]
    assert catalogue.item("a").title == "second"
    assert catalogue.state().seq == 2


def test_writers_of_the_same_items_end_with_one_of_their_versions(catalogue: Catalogue) -> None:
    def put(version: int) -> None:
        with catalogue.change() as change:
            change.put([ItemChange(name, f"version {version}", {"version": version}, None) for name in "abc"])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, range(12)))
    found = {item.title for item in catalogue.page(10, None)}
    assert len(found) == 1, "a change is seen whole"
    assert catalogue.state().seq == 12
    assert all(item.title == f"version {item.attributes['version']}" for item in catalogue.page(10, None))


def test_a_change_of_many_items_takes_as_few_statements_as_one_of_two(catalogue: Catalogue) -> None:
    statements: list[str] = []

    def put(count: int, title: str) -> int:
        images = [[ImageRef(f"{number:064d}", "image/png")] for number in range(count)]
        items = [ItemChange(f"{count}-{n}", title, {"size": n, "kind": "x"}, images[n]) for n in range(count)]
        statements.clear()
        with catalogue.change() as change:
            assert change.put(items) == count
        return len(statements)

    event.listen(catalogue.engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    for title in ("new", "changed"):
        assert put(2, title) == put(200, title), title
