"""gunicorn's settings, from Lookalike's own: `gunicorn --config python:web.gunicorn_config "web.app:create_app()"`."""

import gc
import logging
from typing import Any

from gunicorn.glogging import Logger

from shared.logs import configure_logging
from shared.settings import load_settings
from web.threaded_worker import hurry_body

_settings = load_settings()
configure_logging(_settings)  # here, since gunicorn logs before there is an application
logging.captureWarnings(True)

bind = _settings.web_bind
worker_class = "web.threaded_worker.ThreadedWorker"
# One process: waiting costs a thread, not a processor. More capacity is more replicas of this service.
workers = 1
threads = _settings.web_threads
# Longer than the longest wait of a client, so that no answer is cut off by a restart.
graceful_timeout = _settings.wait_max_seconds + 5
timeout = _settings.wait_max_seconds + 30
keepalive = 30
loglevel = _settings.log_level.lower()
control_socket_disable = True


class PlainLogger(Logger):
    """Leaves gunicorn's lines to the handler that all others go to, which knows their form."""

    def setup(self, cfg: Any) -> None:
        """Set the levels; be no output of its own."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


logger_class = PlainLogger


def post_worker_init(_worker: Any) -> None:
    """Keep what was loaded out of every later garbage collection: there is much of it, and it stays."""
    gc.collect()
    gc.freeze()


def pre_request(_worker: Any, request: Any) -> None:
    """Give up a client whose body does not come: it would keep its thread for as long as it likes."""
    hurry_body(request.unreader)
