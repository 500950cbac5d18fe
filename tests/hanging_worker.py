"""The workers' application, whose consumer stands still once it is ready, as one that hangs does."""

from threading import Event
from typing import Any

from celery.signals import worker_ready

from worker.app import app

__all__ = ["app"]


@worker_ready.connect(weak=False)
def hang(**_: Any) -> None:
    """Keep the main thread, which takes the messages."""
    Event().wait()
