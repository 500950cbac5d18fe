"""A primary and its replica behind one address, as a managed Redis has them."""

import os
import select
import signal
import socket
import socketserver
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import redis

from demo.redis_server import RedisServer

GRACE_SECONDS = 10
FAILOVER_SECONDS = 20
CHUNK_BYTES = 65536


class RedisPair:
    """Two servers. New connections lead to the primary of the moment; old ones stay with the server that they have.

    This is what a name whose address changes does to clients: who is connected to the old primary goes on talking to
    it, and it refuses writes (`READONLY`).
    """

    def __init__(self, primary: RedisServer, replica: RedisServer) -> None:
        self._primary, self._replica = primary, replica
        self._forwarder = _Forwarder()
        self.url = f"redis://127.0.0.1:{self._forwarder.server_address[1]}/0"

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator["RedisPair"]:
        """Start both servers; they end with the block.

        Args:
            folder: gets their data and logs.
        """
        folder.mkdir(parents=True)
        names = ("first", "second")
        pair = cls(*(RedisServer(folder / name, os.environ, folder / f"{name}.log") for name in names))
        lock = os.open(folder, os.O_RDONLY)
        servers = (pair._primary, pair._replica)
        try:
            for server in servers:
                server.start(lock)
            pair._follow()
            with pair._forwarder.running():
                yield pair
        finally:
            for server in servers:
                server.process.stop(GRACE_SECONDS)
            os.close(lock)

    def fail_over(self) -> None:
        """Have the primary hand over to its replica, which loses nothing, and follow it from then on."""
        with redis.Redis.from_url(self._primary.url) as client:
            client.execute_command("FAILOVER", "TO", *_address(self._replica), "TIMEOUT", FAILOVER_SECONDS * 1000)
        self._wait_for(self._replica, "role", "master")
        self._primary, self._replica = self._replica, self._primary
        self._forwarder.target = _address(self._primary)

    def kill_primary(self) -> None:
        """Kill -9 the primary; new connections are refused from now on."""
        self._forwarder.target = None
        self._primary.process.send(signal.SIGKILL)
        self._primary.process.wait(time.monotonic() + GRACE_SECONDS)

    def promote(self) -> None:
        """Make the replica the primary."""
        with redis.Redis.from_url(self._replica.url) as client:
            client.replicaof("NO", "ONE")
        self._primary, self._replica = self._replica, self._primary
        self._forwarder.target = _address(self._primary)

    def _follow(self) -> None:
        with redis.Redis.from_url(self._replica.url) as client:
            client.replicaof(*_address(self._primary))
        self._wait_for(self._replica, "master_link_status", "up")
        self._forwarder.target = _address(self._primary)

    def _wait_for(self, server: RedisServer, name: str, value: str) -> None:
        deadline = time.monotonic() + FAILOVER_SECONDS
        with redis.Redis.from_url(server.url) as client:
            while client.info("replication")[name] != value:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{name} of {server.url} is not {value!r} after {FAILOVER_SECONDS} s")
                time.sleep(0.02)


def _address(server: RedisServer) -> tuple[str, int]:
    host, port = server.url.removeprefix("redis://").removesuffix("/0").split(":")
    return host, int(port)


class _Forwarder(socketserver.ThreadingTCPServer):
    """Leads each connection to the target of the moment when it comes.

    Attributes:
        target: host and port; None: connections are cut.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128
    target: tuple[str, int] | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Take connections until the block ends."""
        thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            self.server_close()
            thread.join(GRACE_SECONDS)


class _Connection(socketserver.BaseRequestHandler):
    server: _Forwarder
    request: Any

    def handle(self) -> None:
        """Carry bytes both ways until one side ends."""
        if self.server.target is None:
            return
        try:
            with socket.create_connection(self.server.target) as other:
                for end in (self.request, other):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _carry(self.request, other)
        except OSError:
            return  # a server that was killed


def _carry(one: socket.socket, other: socket.socket) -> None:
    while True:
        for source in select.select([one, other], [], [])[0]:
            data = source.recv(CHUNK_BYTES)
            if not data:
                return
            (other if source is one else one).sendall(data)
