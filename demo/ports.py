"""Finds ports of this machine that nobody listens on."""

import socket

LOOPBACK = "127.0.0.1"
TRIED_PORTS = 100


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


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


def first_free_port(port: int) -> int:
    """Return `port`, or the next higher one that is free."""
    candidates = range(port, min(port + TRIED_PORTS, 65536))
    return next((candidate for candidate in candidates if is_free(candidate)), None) or free_port()
