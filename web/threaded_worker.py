"""gunicorn's threaded worker, for clients that say nothing or too little, and for those that come while it stops."""

import time
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, ThreadWorker

HEAD_SECONDS = 15
BODY_STALLS_SECONDS = 15
BODY_BYTES_PER_SECOND = 1000  # at least, in any time of waiting like that: a tenth of a poor mobile connection


def hurry_head(unreader: Any) -> None:
    """Give the head of a request HEAD_SECONDS from now; then it counts as ended, where it is."""
    deadline = time.monotonic() + HEAD_SECONDS

    def chunk(size_hint: int | None = None) -> bytes:
        unreader.sock.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            data: bytes = SocketUnreader.chunk(unreader, size_hint)
        except TimeoutError:
            return b""
        return data

    unreader.chunk = chunk


def hurry_body(unreader: Any) -> None:
    """Let reading the body of a request fail, with TimeoutError, when it stalls or comes too slowly.

    What counts is the time that this process waits for the client, not what it does in between.
    """
    unreader.sock.settimeout(BODY_STALLS_SECONDS)
    waited, came = 0.0, 0

    def chunk(size_hint: int | None = None) -> bytes:
        nonlocal waited, came
        began = time.monotonic()
        data: bytes = SocketUnreader.chunk(unreader, size_hint)
        waited += time.monotonic() - began
        came += len(data)
        if waited > BODY_STALLS_SECONDS:
            if came < BODY_BYTES_PER_SECOND * waited:
                raise TimeoutError("The body comes too slowly.")
            waited, came = 0.0, 0
        return data

    unreader.chunk = chunk


class ThreadedWorker(ThreadWorker):
    """Gives a thread to who says something, and shuts the door before it waits for the last to leave.

    - gunicorn's own gives each new connection a thread, which waits up to 5 s for the first byte. A few hundred idle
      ones take all threads, and everybody else waits for as long.
    - gunicorn's own waits for the rest of a request without a limit. One who stops in the middle of it, or sends a byte
      now and then, would keep its thread for good.
    - gunicorn's own lingers in its main thread for up to 2 s over each connection that it closes, until the client has
      hung up too: a few dozen that don't, and nobody is served meanwhile. Here each thread lingers over its own.
    - gunicorn's own stops to accept on SIGTERM, but keeps listening until its last request has ended, which takes as
      long as the longest wait of a client. Who connects meanwhile is neither refused nor served, and cut off at last.
      Refused, a client or a load balancer goes to the next web process at once.
    """

    def handle(self, conn: Any) -> Any:
        """Read a request and answer it, in a thread; `pre_request` of the settings hurries its body."""
        conn.init()
        hurry_head(conn.parser.unreader)
        stays = super().handle(conn)
        if not stays:
            conn.close(graceful=True)
            conn.close = lambda graceful=False: None  # the main thread calls it as well
        return stays

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
