"""Connections to Redis."""

from redis import BlockingConnectionPool, ConnectionPool, Redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from shared.settings import Settings

LISTEN_SECONDS = 10


def connect_redis(settings: Settings, max_connections: int | None = None) -> Redis:
    """Open a connection pool for commands; fails within about three seconds while Redis is away.

    Args:
        settings: names the server.
        max_connections: so many threads use Redis at once, and further ones wait for their turn; None: no limit.
    """
    options = {
        "socket_connect_timeout": 1,
        "socket_timeout": 5,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), retries=2),
        "retry_on_error": [RedisConnectionError],
        "health_check_interval": 15,
    }
    if max_connections is None:
        return Redis.from_pool(ConnectionPool.from_url(settings.redis_url, **options))
    pool = BlockingConnectionPool.from_url(settings.redis_url, max_connections=max_connections, timeout=5, **options)
    return Redis.from_pool(pool)


def connect_redis_for_listening(settings: Settings) -> Redis:
    """Open a connection for reads that block for up to LISTEN_SECONDS; who listens notices a failure at once."""
    return Redis.from_url(
        settings.redis_url,
        socket_connect_timeout=1,
        socket_timeout=LISTEN_SECONDS + 5,
        retry=Retry(NoBackoff(), retries=0),
    )
