"""Finds ports of this machine that nobody listens on."""

import random
import socket
from collections.abc import Iterable

LOOPBACK = "127.0.0.1"
# Below the ports that Linux (32768 on) and macOS (49152 on) give to outgoing connections: between our look and
# the server's start, a connection, for example one of ours to Redis, could take a port from there.
QUIET_PORTS = range(20_000, 32_768)


def free_port() -> int:
    """Return a random port that is free now and that probably nobody else takes next.

    Raises:
        OSError: if every port is taken.
    """
    return _first_free(random.sample(QUIET_PORTS, len(QUIET_PORTS)))


def first_free_port(port: int) -> int:
    """Return `port`, or the next higher one that is free.

    Raises:
        OSError: if every higher port is taken.
    """
    return _first_free(range(port, 65_536))


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        # As servers do: a port whose last connections are still closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _first_free(ports: Iterable[int]) -> int:
    for port in ports:
        if is_free(port):
            return port
    raise OSError("no port of this machine is free")
