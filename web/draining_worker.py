"""gunicorn's threaded worker, which leaves nobody waiting at the door when it stops."""

from typing import Any

from gunicorn.workers.gthread import ThreadWorker


class DrainingWorker(ThreadWorker):
    """Takes who has connected already, and then shuts the door.

    gunicorn's own stops to accept on SIGTERM but keeps listening until its last request has ended, which takes as long as
    the longest wait of a client. Who connects meanwhile is neither refused nor served, and is cut off in the end.
    Refused, a client or a load balancer goes to the next web process at once.
    """

    def set_accept_enabled(self, enabled: bool) -> None:
        """Begin or cease to accept; on the way out for good."""
        super().set_accept_enabled(enabled)
        if enabled or self.alive:
            return
        for listener in self.sockets:
            while self._accepts_one(listener):
                pass
            listener.close()

    def _accepts_one(self, listener: Any) -> bool:
        """Accept the next connection, if one waits."""
        before = self.nr_conns
        self.accept(listener)
        return bool(self.nr_conns > before)
