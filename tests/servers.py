"""Real servers that the tests start themselves, on loopback, and stop by their process id."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import redis

from demo.ports import free_port
from demo.redis_server import find_redis_server

START_SECONDS = 30


class RedisProcess:
    """A Redis-compatible server that keeps an append-only file, so that it can be killed and come back."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [find_redis_server(), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder)]
        command += ["--appendonly", "yes", "--save", ""]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        with redis.Redis.from_url(self.url) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.RedisError:
                    if time.monotonic() > deadline or self._process.poll() is not None:
                        raise
                    time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def running_redis(folder: Path) -> Iterator[RedisProcess]:
    server = RedisProcess(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def postgres_programs() -> Path | None:
    """Return the folder of PostgreSQL's server programs, if it is installed."""
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


@contextmanager
def running_postgres(programs: Path) -> Iterator[str]:
    """Start a cluster of our own and yield its URL; PostgreSQL refuses to run as root, so another user owns it."""
    # Not in pytest's folder: each session of pytest shuts that one for other users, also while we run.
    with tempfile.TemporaryDirectory(prefix="lookalike-postgres-") as data:
        options: dict[str, str] = {}
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(data, owner.pw_uid, owner.pw_gid)
            options = {"user": "postgres", "group": "postgres"}
        with _running_cluster(programs, data, options) as url:
            yield url


@contextmanager
def _running_cluster(programs: Path, data: str, options: dict[str, str]) -> Iterator[str]:
    port = free_port()
    base = [str(programs / "initdb"), "-D", data, "-U", "lookalike", "-A", "trust", "-N", "-E", "UTF8"]
    subprocess.run([*base, "--locale", "C.UTF-8"], check=True, stdout=subprocess.DEVNULL, cwd="/", **options)  # type: ignore[call-overload]
    server = [str(programs / "postgres"), "-D", data, "-p", str(port), "-k", "", "-h", "127.0.0.1", "-F"]
    process = subprocess.Popen(server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **options)  # type: ignore[call-overload]
    url = f"postgresql://lookalike@127.0.0.1:{port}/postgres"
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(url).close()
                break
            except psycopg.OperationalError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.05)
        yield url
    finally:
        process.send_signal(signal.SIGINT)  # end now, with clients or without
        process.wait(START_SECONDS)
