"""gunicorn's threaded worker, for clients that say nothing or too little, and for those that come while it stops."""

import socket
import time
from contextlib import suppress
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, ThreadWorker

HEAD_SECONDS = 15


class ThreadedWorker(ThreadWorker):
    """Gives a thread to who says something, and shuts the door before it waits for the last to leave.

    - gunicorn's own gives each new connection a thread, which waits up to 5 s for the first byte. A few hundred idle
      ones take all threads, and everybody else waits for as long.
    - gunicorn's own waits for the end of a request's head without a limit. One who stops in the middle of it, or sends
      a byte now and then, would keep its thread for good; here the connection is closed after HEAD_SECONDS.
    - gunicorn's own stops to accept on SIGTERM, but keeps listening until its last request has ended, which takes as
      long as the longest wait of a client. Who connects meanwhile is neither refused nor served, and cut off at last.
      Refused, a client or a load balancer goes to the next web process at once.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Begin with nobody; the arguments are gunicorn's."""
        super().__init__(*args, **kwargs)
        # When the head of each request that a thread reads must be there. Threads add and remove their own.
        self._head_deadlines: dict[socket.socket, float] = {}

    def handle(self, conn: Any) -> Any:
        """Read a request and answer it, in a thread."""
        self._head_deadlines[conn.sock] = time.monotonic() + HEAD_SECONDS
        try:
            return super().handle(conn)
        finally:
            self.head_is_read(conn.sock)

    def head_is_read(self, connection: socket.socket) -> None:
        """Let a request take its time from here on."""
        self._head_deadlines.pop(connection, None)

    def murder_pending(self) -> None:
        """Close connections whose time is over; called once a second."""
        super().murder_pending()
        for connection, deadline in list(self._head_deadlines.items()):
            if time.monotonic() > deadline:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)  # its thread reads the end, and closes it

    def enqueue_req(self, conn: Any) -> None:
        """Hand a connection to the threads, a new one when its first byte is there."""
        if conn.initialized or conn.data_ready:
            super().enqueue_req(conn)
            return
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + (self.cfg.keepalive if self.alive else STOP_KEEPALIVE_LINGER)
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def set_accept_enabled(self, enabled: bool) -> None:
        """Begin or cease to accept; on the way out for good, when all who had connected are in."""
        super().set_accept_enabled(enabled)
        if enabled or self.alive:
            return
        leaving = time.monotonic() + STOP_KEEPALIVE_LINGER
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, leaving)
        for listener in self.sockets:
            while self._accepts_one(listener):
                pass
            listener.close()

    def _accepts_one(self, listener: Any) -> bool:
        """Accept the next connection, if one waits."""
        before = self.nr_conns
        self.accept(listener)
        return bool(self.nr_conns > before)
