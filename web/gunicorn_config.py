"""gunicorn's settings, from Lookalike's own: `gunicorn --config python:web.gunicorn_config "web.app:create_app()"`."""

import gc
from typing import Any

from shared.settings import load_settings

STALLED_SECONDS = 15

_settings = load_settings()

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


def post_worker_init(_worker: Any) -> None:
    """Keep what was loaded out of every later garbage collection: there is much of it, and it stays."""
    gc.collect()
    gc.freeze()


def pre_request(_worker: Any, request: Any) -> None:
    """Give up a client that stops in the middle of its body: it would keep its thread for as long as it likes."""
    request.unreader.sock.settimeout(STALLED_SECONDS)
