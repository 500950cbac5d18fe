"""Fixtures: real servers, the running stack, data sets."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import enumerate as enumerate_threads
from typing import TYPE_CHECKING

import psycopg
import pytest
import redis
from playwright.sync_api import Browser, sync_playwright
from sqlalchemy import Engine

from demo.processes import ProcessGroup
from shared.catalogue import Catalogue
from shared.database import connect_database
from shared.migrations import upgrade
from shared.settings import Settings
from tests.servers import RedisProcess, postgres_programs, running_postgres, running_redis
from tests.stack import Stack, running_stack

if TYPE_CHECKING:
    from worker.milvus.connection import MilvusConnection

ROOT = Path(__file__).parent.parent
CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
Launcher = Callable[..., Browser]


def pytest_configure(config: pytest.Config) -> None:
    # The tests decide every setting themselves; a developer's own must not reach them.
    for name in list(os.environ):
        if name.startswith("LOOKALIKE_") and name != "LOOKALIKE_DATASETS":
            del os.environ[name]
    for name in ("REDIS_URL", "DATABASE_URL"):
        if name in os.environ:
            os.environ[f"TEST_{name}"] = os.environ.pop(name)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_client(redis_server: RedisProcess) -> Iterator[redis.Redis]:
    """An empty server of our own."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """A server that no other module's tests use, for those who count commands or connections."""
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def own_redis_client(own_redis: RedisProcess) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(own_redis.url) as client:
        yield client


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The server that DATABASE_URL names, else a cluster of our own."""
    given = os.environ.get("TEST_DATABASE_URL", "")
    if given.startswith("postgres"):
        yield given
        return
    programs = postgres_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed and DATABASE_URL names none")
    with running_postgres(programs) as url:
        yield url


@contextmanager
def empty_database(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """Make an empty database, "sqlite" or "postgresql", and yield its URL."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/lookalike.sqlite3"
        return
    server = request.getfixturevalue("postgres_url")
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield server.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database, on each kind that Lookalike supports."""
    with empty_database(request.param, request, tmp_path) as url:
        yield url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A migrated database."""
    engine = connect_database(database_url)
    upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def catalogue(engine: Engine) -> Catalogue:
    return Catalogue(engine)


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator["MilvusConnection"]:
    """Milvus in a file, for tests that each have a collection of their own."""
    from worker.milvus.connection import MilvusConnection

    connection = MilvusConnection(str(tmp_path_factory.mktemp("milvus") / "milvus.db"))
    yield connection
    connection.close()


@pytest.fixture
def settings(redis_server: RedisProcess, tmp_path: Path) -> Settings:
    return make_settings(redis_server, tmp_path)


def make_settings(redis_server: RedisProcess, folder: Path, **values: object) -> Settings:
    """Return settings for parts that a test puts together itself."""
    fixed = {"REDIS_URL": redis_server.url, "DATABASE_URL": f"sqlite:///{folder}/lookalike.sqlite3"}
    return Settings(_env_file=None, **{**fixed, "store_url": str(folder / "store"), **values})  # type: ignore[arg-type]


def make_migrated_settings(redis_server: RedisProcess, folder: Path, **values: object) -> Settings:
    """Return the same, with an empty catalogue behind them."""
    settings = make_settings(redis_server, folder, **values)
    engine = connect_database(settings.database_url)
    upgrade(engine)
    engine.dispose()
    return settings


@pytest.fixture(scope="session")
def datasets() -> Path:
    """The folder of real images."""
    folder = Path(os.environ.get("LOOKALIKE_DATASETS") or ROOT.parent / "shared" / "datasets")
    if not folder.is_dir():
        pytest.skip(f"the data sets are not at {folder}; LOOKALIKE_DATASETS can name another folder")
    return folder


@pytest.fixture(scope="session")
def sample_catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated catalogue: products.csv, images/, photo.jpg, photo.txt."""
    folder = tmp_path_factory.mktemp("catalogue") / "sample"
    command = [sys.executable, "-m", "training.sample_catalogue", "--out", str(folder)]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, sample_catalogue: Path) -> Iterator[Stack]:
    """All processes of the Procfile, with the sample catalogue imported; tests leave its items as they are."""
    # Open on purpose: a test calls it by another name than localhost, which a server without keys refuses otherwise.
    settings = {"LOOKALIKE_IMPORT_ROOT": str(sample_catalogue), "LOOKALIKE_ACCESS": "open"}
    with running_stack(tmp_path_factory.mktemp("stack"), settings) as stack:
        job = stack.post("/v1/imports", json={"path": "products.csv"}).json()
        finished = stack.finished(job["id"], seconds=170)
        assert finished["status"] == "succeeded", finished
        yield stack


@pytest.fixture(scope="session")
def live_server(stack: Stack) -> str:
    """Base URL of the running stack."""
    return stack.base_url


@pytest.fixture(scope="session")
def chromium_launcher() -> Iterator[Launcher]:
    """Starts headless browsers, with further arguments; Playwright itself can run only once in a process."""
    if not CHROMIUM.exists():
        reason = f"there is no Chromium at {CHROMIUM}; install it with: apt-get install chromium"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as playwright:
        yield lambda *more: playwright.chromium.launch(executable_path=CHROMIUM, args=[*CHROMIUM_ARGUMENTS, *more])


@pytest.fixture
def new_stack(tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Starts stacks that a test may break; they end with it."""
    opened: list[ProcessGroup] = []

    def start(**environment: str) -> Stack:
        stack = Stack.start(tmp_path / f"stack{len(opened)}", environment)
        opened.append(stack.group)
        return stack

    yield start
    for group in opened:
        group.stop()


@pytest.fixture(autouse=True)
def no_index_is_written_after_its_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Wait for threads that write an index: they hold connections to a database that goes with the test."""
    if "catalogue" in request.fixturenames:
        request.getfixturevalue("catalogue")  # so that it goes after this
    yield
    for thread in enumerate_threads():
        if thread.name == "write-snapshot":
            thread.join(60)
