"""Connections that a guard opens: to permitted addresses only, and cut when their call's time is up."""

import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self

from requests.adapters import HTTPAdapter
from requests_hardened.ip_filter_adapter import IPFilterAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NewConnectionError
from urllib3.util.connection import allowed_gai_family, create_connection

from shared.urls import check_address


class Deadline:
    """The moment by which a call ends, whatever the server does: its connections are cut then.

    A socket's own timeout starts anew with every byte, so a server that drips outlives it.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._timer.cancel()
        with self._lock:
            for duplicate in self._sockets:
                duplicate.close()
            self._sockets.clear()

    @property
    def remaining_seconds(self) -> float:
        """What is left, never negative."""
        return max(0.0, self._end - time.monotonic())

    @property
    def has_passed(self) -> bool:
        """Whether the call has to end now."""
        return self.remaining_seconds == 0

    def check(self) -> None:
        """Raise TimeoutError if the call has to end now."""
        if self.has_passed:
            raise TimeoutError

    def watch(self, connection: socket.socket) -> None:
        """Cut `connection` when the time is up, also after TLS took its file descriptor over."""
        with self._lock:
            self._sockets.append(connection.dup())
        if self.has_passed:
            self._cut()

    def _cut(self) -> None:
        with self._lock:
            for duplicate in self._sockets:
                with suppress(OSError):
                    duplicate.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class Guard:
    """Opens the connections of one call, to permitted addresses and within its deadline."""

    deadline: Deadline
    allow_private: bool
    tls: ssl.SSLContext

    def connect(self, connection: HTTPConnection, host: str) -> socket.socket:
        """Open a socket to the first address of `host` that answers, if all of them are permitted."""
        port = connection.port
        try:
            found = socket.getaddrinfo(host.strip("[]"), port, allowed_gai_family(), socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
            for address in addresses:
                check_address(ip_address(address), allow_private=self.allow_private)
            opened = self._connect_first(addresses, port, connection)
        except OSError as error:
            raise NewConnectionError(connection, "not connected") from error
        self.deadline.watch(opened)
        return opened

    def _connect_first(self, addresses: list[str], port: int, connection: HTTPConnection) -> socket.socket:
        failure = OSError("no address")
        for address in addresses:
            try:
                return create_connection(
                    (address, port), self.deadline.remaining_seconds, socket_options=connection.socket_options
                )
            except OSError as error:
                failure = error
        raise failure


class GuardedHTTPConnection(HTTPConnection):
    """A connection that its guard opens."""

    def __init__(self, *args: Any, guard: Guard, **options: Any) -> None:
        super().__init__(*args, **options)
        self._guard = guard

    def _new_conn(self) -> socket.socket:
        return self._guard.connect(self, self._dns_host)


class GuardedHTTPSConnection(GuardedHTTPConnection, HTTPSConnection):
    """A TLS connection that its guard opens."""


class GuardedAdapter(HTTPAdapter):
    """Sends requests over connections that the guard opens."""

    def __init__(self, guard: Guard, **options: Any) -> None:
        super().__init__(**options)
        self._guard = guard

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        """Return requests' pool, which makes guarded connections."""
        pool: Any = super().get_connection_with_tls_context(*args, **options)
        pool.ConnectionCls = GuardedHTTPSConnection if pool.scheme == "https" else GuardedHTTPConnection
        pool.conn_kw["guard"] = self._guard
        if pool.scheme == "https":
            pool.conn_kw["ssl_context"] = self._guard.tls
        return pool

    def cert_verify(self, *args: Any, **options: Any) -> None:
        """Leave the pool as it is; requests would load the CA file again, 19 ms for every fetch.

        The guard's TLS context holds the CAs, and `verify=True` has the pool require a certificate.
        """


class PublicOnlyAdapter(GuardedAdapter, IPFilterAdapter):
    """The same behind requests-hardened, which resolves a name once, refuses non-public addresses and pins the rest."""
