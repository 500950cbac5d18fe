"""gunicorn's threaded worker, for clients that connect and say nothing, and for those that come while it stops."""

import time
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, ThreadWorker


class ThreadedWorker(ThreadWorker):
    """Gives a thread to who has said something, and shuts the door before it waits for the last to leave.

    - gunicorn's own gives each new connection a thread, which waits up to 5 s for the first byte. A few hundred idle
      ones take all threads, and everybody else waits for as long.
    - gunicorn's own stops to accept on SIGTERM, but keeps listening until its last request has ended, which takes as
      long as the longest wait of a client. Who connects meanwhile is neither refused nor served, and cut off at last.
      Refused, a client or a load balancer goes to the next web process at once.
    """

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
