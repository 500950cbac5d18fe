"""Celery's consumer, which asks for Redis more often while that is away."""

from functools import partial
from typing import Any

from celery.worker import consumer

# kombu's own pauses grow to 30 s, and a worker would be late by as much when Redis is back.
FIRST_PAUSE_SECONDS = 1
LONGEST_PAUSE_SECONDS = 2


class Consumer(consumer.Consumer):
    """Takes the messages; worker/app.py names it in Celery's settings."""

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, trying again as long as it takes."""
        conn.ensure_connection = partial(
            conn.ensure_connection,
            interval_start=FIRST_PAUSE_SECONDS,
            interval_step=1,
            interval_max=LONGEST_PAUSE_SECONDS - FIRST_PAUSE_SECONDS,  # kombu adds the first one to it
        )
        return super().ensure_connected(conn)
