"""The index in Milvus: who writes, what a crash leaves, releases and the alias, Milvus away."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import redis
from milvus_lite.adapter.grpc.server import start_server_in_thread
from sqlalchemy import Engine

from demo.ports import free_port
from shared.catalogue import Catalogue
from shared.catalogue_change import ItemChange
from shared.database import connect_database
from shared.errors import IndexUnavailable
from shared.migrations import upgrade
from shared.releases import Release, choose_release
from tests.faiss_kinds import DIM, unit
from tests.integration.test_live_index import before_statements
from tests.item_index_kinds import ENCODER, BruteForceItems, X, at, delete, found, in_milvus, put
from tests.servers import RedisProcess
from tests.stack import ROOT, wait_until
from worker.index.recipe import EXACT, IndexRecipe
from worker.milvus.collection import ALIAS, ForeignCollection, collection_name
from worker.milvus.connection import MilvusConnection
from worker.milvus.milvus_index import MilvusIndex

SECONDS = 60
Open = Callable[..., MilvusIndex]


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/lookalike.sqlite3"


@pytest.fixture
def open_index(catalogue: Catalogue, milvus: MilvusConnection, redis_client: redis.Redis) -> Open:
    def open_index(release: str | None = None) -> MilvusIndex:
        return in_milvus(catalogue, milvus, redis_client, release)

    return open_index


@pytest.fixture
def release(request: pytest.FixtureRequest) -> str:
    return f"release of {request.node.name}"


def fill(catalogue: Catalogue, items: int) -> None:
    vectors = unit(items)
    put(catalogue, {f"i{number:04}": [vectors[number]] for number in range(items)})


def as_brute_force(index: MilvusIndex, catalogue: Catalogue) -> None:
    for seed in range(3):
        query = unit(1, seed=1000 + seed)[0]
        expected = found(BruteForceItems(catalogue), catalogue, query, k=2000)
        assert found(index, catalogue, query, k=2000) == pytest.approx(expected, abs=1e-5)
    assert len(index) == len(BruteForceItems(catalogue))


class Interrupted(Exception):
    pass


def failing_at(statement: int) -> Callable[[str], None]:
    """Return what fails when it is called for the so-and-so-many-th time."""
    left = statement

    def count(_: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Interrupted

    return count


@pytest.mark.parametrize("statement", range(1, 12))
def test_a_writer_that_fails_anywhere_is_followed_by_one_that_completes_it(
    catalogue: Catalogue, engine: Engine, open_index: Open, release: str, statement: int
) -> None:
    index = open_index(release)
    fill(catalogue, 450)
    with catalogue.change() as change:
        change.put([ItemChange("i0003", "", {"colour": "red"}, None)])
    delete(catalogue, "i0001", "i0440")
    with before_statements(engine, failing_at(statement)):
        try:
            index.follow()
        except Interrupted:
            assert index.refresh() == 0
    as_brute_force(index, catalogue)
    as_brute_force(open_index(release), catalogue)


KILLED = """
import os, signal, sys
from pathlib import Path
import redis
from sqlalchemy import event
from shared.catalogue import Catalogue
from shared.database import connect_database
from tests.item_index_kinds import in_milvus
from worker.milvus.connection import MilvusConnection

database, file, redis_url, statements = sys.argv[1:]
engine = connect_database(database)
left = int(statements)

@event.listens_for(engine, "before_cursor_execute")
def count(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

in_milvus(Catalogue(engine), MilvusConnection(file), redis.Redis.from_url(redis_url), "killed")
"""


@pytest.mark.parametrize("statements", [7, 10])
def test_a_writer_that_is_killed_is_followed_by_one_that_completes_it(
    catalogue: Catalogue,
    database_url: str,
    redis_server: RedisProcess,
    redis_client: redis.Redis,
    tmp_path: Path,
    statements: int,
) -> None:
    fill(catalogue, 1000)
    file = str(tmp_path / "own.db")
    arguments = [sys.executable, "-c", KILLED, database_url, file, redis_server.url, str(statements)]
    assert subprocess.run(arguments, cwd=ROOT, timeout=SECONDS, check=False).returncode == -signal.SIGKILL
    milvus = MilvusConnection(file)
    try:
        as_brute_force(in_milvus(catalogue, milvus, redis_client, "killed"), catalogue)
    finally:
        milvus.close()


def test_index_files_of_which_a_kill_left_the_half_are_made_anew(
    catalogue: Catalogue, redis_client: redis.Redis, tmp_path: Path
) -> None:
    fill(catalogue, 450)
    file = tmp_path / "own.db"
    milvus = MilvusConnection(str(file))
    in_milvus(catalogue, milvus, redis_client, "half")
    milvus.close()
    written = [path for path in file.rglob("*.idx") if path.is_file()]
    assert written
    for path in written:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    milvus = MilvusConnection(str(file))
    try:
        as_brute_force(in_milvus(catalogue, milvus, redis_client, "half"), catalogue)
    finally:
        milvus.close()


def test_what_is_deleted_is_found_no_more_at_once_and_others_take_its_place(
    catalogue: Catalogue, open_index: Open
) -> None:
    index = open_index()
    put(catalogue, {f"i{number}": [at(number / 20)] for number in range(1, 20)})
    index.follow()
    delete(catalogue, *(f"i{number}" for number in range(12, 20)))
    hits = index.nearest_items(X[None], 5)  # Milvus has all of them still
    assert [round(score * 20) for _, score in hits] == [11, 10, 9, 8, 7]


def test_writers_of_several_processes_take_turns(
    catalogue: Catalogue, milvus: MilvusConnection, redis_client: redis.Redis, release: str
) -> None:
    indexes = [in_milvus(catalogue, milvus, redis_client, release) for _ in range(3)]
    stopped = Event()

    def write() -> None:
        try:
            for number in range(25):
                put(catalogue, {f"i{number % 9}": [at(number / 30), at(-number / 40)], f"j{number}": [at(0.01)]})
                delete(catalogue, f"j{number - 3}")
        finally:
            stopped.set()

    def follow(index: MilvusIndex) -> None:
        seqs = [0]
        while not stopped.is_set():
            seqs.append(index.follow())
            scores = [score for _, score in index.nearest_items(X[None], 5)]
            assert scores == sorted(scores, reverse=True)
        assert seqs == sorted(seqs)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(write), *(pool.submit(follow, index) for index in indexes)]:
            future.result(SECONDS)
    for index in indexes:
        as_brute_force(index, catalogue)


def test_who_does_not_write_goes_on_with_what_another_has_written(
    catalogue: Catalogue, milvus: MilvusConnection, redis_client: redis.Redis, release: str
) -> None:
    index = in_milvus(catalogue, milvus, redis_client, release)
    key = f"lookalike:index-writer:{collection_name(release)}"
    redis_client.set(key, "another process")
    put(catalogue, {"a": [at(0.9)]})
    assert index.follow() == 0
    assert index.nearest_items(X[None], 5) == []
    redis_client.delete(key)
    assert index.follow() == 1
    assert len(index.nearest_items(X[None], 5)) == 1


def test_the_alias_names_the_collection_of_the_active_release_and_goes_back_with_it(
    catalogue: Catalogue, milvus: MilvusConnection, redis_client: redis.Redis
) -> None:
    put(catalogue, {"a": [at(0.9)]})
    described: dict[str, Any] = {"encoder": {"files": {"x": "y"}}, "similar": {"min_cosine": 1.0}}
    releases = [Release(f"{ENCODER}.{name}", ENCODER, described) for name in ("first", "second")]

    def named() -> str:
        with milvus.calling() as client:
            return str(client.describe_alias(ALIAS)["collection_name"])

    for release in (*releases, releases[0]):
        choose_release(catalogue, release)
        index = in_milvus(catalogue, milvus, redis_client, release.id)
        assert named() == collection_name(release.id)
        put(catalogue, {"a": [at(0.5)], release.id[-5:]: [at(0.4)]})
        assert len(found(index, catalogue, X)) == len(BruteForceItems(catalogue))
    in_milvus(catalogue, milvus, redis_client, releases[1].id)  # a worker that has not noticed the change
    assert named() == collection_name(releases[0].id)
    assert collection_name("a.b-c") != collection_name("a_b.c")


def test_an_encoder_never_meets_the_vectors_of_another(
    catalogue: Catalogue, milvus: MilvusConnection, redis_client: redis.Redis, release: str
) -> None:
    put(catalogue, {"a": [at(0.9)]})
    in_milvus(catalogue, milvus, redis_client, release)
    other = MilvusIndex(catalogue, redis_client, milvus, release, "another encoder", DIM, EXACT)
    with pytest.raises(ForeignCollection, match="holds vectors of encoder, not of another encoder"):
        other.open()
    with pytest.raises(ValueError, match="expected float32"):
        in_milvus(catalogue, milvus, redis_client, release).nearest_items(unit(1, dim=DIM + 1), 1)


def test_a_database_that_went_back_to_its_backup_is_what_counts(
    tmp_path: Path, milvus: MilvusConnection, redis_client: redis.Redis, release: str
) -> None:
    def opened(file: str) -> Catalogue:
        engine = connect_database(f"sqlite:///{tmp_path}/{file}")
        upgrade(engine)
        return Catalogue(engine)

    before = opened("before.sqlite3")
    put(before, {"a": [at(0.9)], "b": [at(0.5)]}, attributes={"a": {"colour": "red"}})
    before.engine.dispose()
    shutil.copy(tmp_path / "before.sqlite3", tmp_path / "lost.sqlite3")
    lost = opened("lost.sqlite3")
    put(lost, {"a": [at(0.8)], "c": [at(0.7)]}, attributes={"a": {"colour": "blue"}})
    put(lost, {"d": [at(0.6)]})
    assert len(found(in_milvus(lost, milvus, redis_client, release), lost, X)) == 4

    index = in_milvus(opened("before.sqlite3"), milvus, redis_client, release)
    as_brute_force(index, opened("before.sqlite3"))
    assert index.nearest_items(X[None], 5, index.allowed({"colour": "red"}))
    # And on from there, past what was lost, with the same rows for other images.
    went_on = opened("before.sqlite3")
    for number in range(9):
        put(went_on, {f"e{number}": [at(number / 30)]})
    as_brute_force(in_milvus(went_on, milvus, redis_client, release), went_on)
    # A worker that starts with the lost one again, which is behind now.
    as_brute_force(in_milvus(lost, milvus, redis_client, release), lost)


def test_a_file_that_another_process_has_open_is_refused_with_a_remedy(tmp_path: Path) -> None:
    file = str(tmp_path / "folder" / "own.db")
    milvus = MilvusConnection(file)
    with milvus.calling() as client:
        assert client.list_collections() == []
    code = f"from worker.milvus.connection import MilvusConnection\nwith MilvusConnection({file!r}).calling(): pass"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=SECONDS, capture_output=True, text=True)
    milvus.close()
    assert done.returncode == 1
    assert "IndexUnavailable" in done.stderr
    assert "may be open in one process only: run one search worker with it, or a Milvus server" in done.stderr


class Server:
    """milvus-lite as a server, which can go away and come back."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._port = free_port()
        self._running: tuple[Any, Any] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        server, database, _ = start_server_in_thread(data_dir=self._folder, host="127.0.0.1", port=self._port)
        self._running = server, database

    def stop(self) -> None:
        if self._running is not None:
            self._running[0].stop(grace=0).wait()
            self._running[1].close()
            self._running = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "server")
    server.start()
    yield server
    server.stop()


def test_it_goes_on_by_itself_when_the_server_is_back(
    catalogue: Catalogue, redis_client: redis.Redis, server: Server
) -> None:
    milvus = MilvusConnection(server.url)
    index = in_milvus(catalogue, milvus, redis_client)
    put(catalogue, {"a": [at(0.9)]})
    assert list(found(index, catalogue, X)) == ["a"]
    server.stop()
    put(catalogue, {"b": [at(0.99)]})
    with pytest.raises(IndexUnavailable, match="can't be reached now"):
        index.nearest_items(X[None], 5)
    with pytest.raises(IndexUnavailable):
        index.follow()
    assert index.refresh() == 1
    server.start()

    def is_back() -> bool:
        try:
            return index.follow() == 2
        except IndexUnavailable:
            return False

    wait_until(is_back, SECONDS, "it follows again")
    assert list(found(index, catalogue, X)) == ["b", "a"]
    milvus.close()


def test_a_server_that_is_not_there_is_told_in_time(catalogue: Catalogue, redis_client: redis.Redis) -> None:
    milvus = MilvusConnection(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(IndexUnavailable):
        in_milvus(catalogue, milvus, redis_client)


def test_a_graph_is_built_and_searched_for_a_recall_target(
    catalogue: Catalogue, redis_client: redis.Redis, server: Server
) -> None:
    """milvus-lite takes the arguments, and passes over efSearch; what a cluster makes of them is its own affair."""
    fill(catalogue, 300)
    milvus = MilvusConnection(server.url)
    index = MilvusIndex(catalogue, redis_client, milvus, "graph", ENCODER, DIM, IndexRecipe(0.99))
    index.open()
    with milvus.calling() as client:
        assert client.describe_index(collection_name("graph"), "vector")["index_type"] == "HNSW"
    expected = found(BruteForceItems(catalogue), catalogue, X, k=10)
    assert found(index, catalogue, X, k=10) == pytest.approx(expected, abs=1e-5)
    milvus.close()


def test_rows_with_tied_scores_are_not_cut_off_at_random(catalogue: Catalogue, open_index: Open) -> None:
    index = open_index()
    names = [f"i{number}" for number in np.random.default_rng(1).permutation(120)]
    for name in names:
        put(catalogue, {name: [at(0.5)]})
    put(catalogue, {"best": [at(0.9)]})
    assert list(found(index, catalogue, X, k=30)) == ["best", *names[:29]]


def test_a_collection_is_filled_in_steps_between_which_the_present_one_follows(
    catalogue: Catalogue,
    milvus: MilvusConnection,
    redis_client: redis.Redis,
    open_index: Open,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.milvus.writer.STEP_SECONDS", 0)
    present = open_index()
    for change_of in range(5):
        vectors = unit(250, seed=change_of)  # more than a page holds
        put(catalogue, {f"i{change_of}-{number}": [vectors[number]] for number in range(250)})
    delete(catalogue, "i2-2")
    with catalogue.change() as change:
        change.purge_tombstones(datetime.now(UTC) + timedelta(hours=1))
    seqs: list[int] = []

    def meanwhile() -> None:
        put(catalogue, {"i3-3": [at(0.3 + len(seqs) / 100)]})
        seqs.append(present.follow())

    following = MilvusIndex(catalogue, redis_client, milvus, "in steps", ENCODER, DIM, EXACT)
    following.open(meanwhile)
    assert len(seqs) > 3
    assert seqs == sorted(seqs)
    assert seqs[-1] > seqs[0]
    for index in (present, following):
        as_brute_force(index, catalogue)
