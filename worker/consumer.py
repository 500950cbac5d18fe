"""Celery's consumer, which asks for Redis more often while that is away."""

from functools import partial
from typing import Any

from celery.worker import consumer

RETRY_MAX_SECONDS = 2  # kombu's own pauses grow to 30 s, and a worker would be late by as much when Redis is back


class Consumer(consumer.Consumer):
    """Takes the messages; worker/app.py names it in Celery's settings."""

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, trying again as long as it takes."""
        conn.ensure_connection = partial(
            conn.ensure_connection, interval_start=1, interval_step=1, interval_max=RETRY_MAX_SECONDS
        )
        return super().ensure_connected(conn)
