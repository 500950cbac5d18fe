"""Connections to Redis."""

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from shared.settings import Settings


def connect_redis(settings: Settings) -> Redis:
    """Open a connection pool for commands; fails within about three seconds while Redis is away."""
    return Redis.from_url(
        settings.redis_url,
        socket_connect_timeout=1,
        socket_timeout=5,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), retries=2),
        retry_on_error=[RedisConnectionError],
        health_check_interval=15,
    )


def connect_redis_for_waiting(settings: Settings) -> Redis:
    """Open a connection pool for blocking reads, whose socket outlives the longest permitted wait."""
    return Redis.from_url(
        settings.redis_url,
        socket_connect_timeout=1,
        socket_timeout=settings.wait_max_seconds + 5,
        health_check_interval=15,
    )
