"""Another release becomes active while searches run."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

from shared.catalogue import Catalogue
from shared.database import connect_database
from shared.releases import active_release, choose_release
from tests.e2e.pictures import picture
from tests.e2e.steps import ids_of, put_item
from tests.stack import Stack, wait_until

CLIENTS = 4


def test_no_search_is_lost_or_mixed_when_another_release_becomes_active(
    new_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/catalogue.sqlite3"
    stack = new_stack(DATABASE_URL=url)
    for name in ("bag", "hat"):
        put_item(stack, name, picture(name), title=name)
    catalogue = Catalogue(connect_database(url))
    first = active_release(catalogue)
    assert first is not None
    # The same files, so that both find the same; but the worker must take its encoder for another one.
    encoder = {**first.manifest["encoder"], "built_again": True}
    second = replace(first, id=f"{first.id}.again", manifest={**first.manifest, "encoder": encoder})
    enough = Event()

    def search_on() -> list[dict[str, Any]]:
        jobs = []
        while not enough.is_set():
            jobs.append(stack.search(picture("bag"), fresh=True))
        return jobs

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(search_on) for _ in range(CLIENTS)]
        try:
            wait_until(lambda: stack.search(picture("hat"))["result"]["release"] == first.id, 30, "the first answers")
            choose_release(catalogue, second)
            wait_until(lambda: stack.search(picture("hat"))["result"]["release"] == second.id, 60, "the second answers")
        finally:
            enough.set()
        answers = [client.result(60) for client in clients]

    for jobs in answers:
        releases = [job["result"]["release"] for job in jobs]
        assert all(ids_of(job) == ["bag", "hat"] for job in jobs)
        assert releases == sorted(releases, key=[first.id, second.id].index), "no client goes back to the first"
    assert {job["result"]["release"] for jobs in answers for job in jobs} == {first.id, second.id}
    put_item(stack, "shoe", picture("shoe"), title="shoe")
    found = stack.search(picture("shoe"), fresh=True)
    assert (ids_of(found)[0], found["result"]["release"]) == ("shoe", second.id)
