"""Connections to Redis."""

from typing import Any
from urllib.parse import urlsplit

from redis import BlockingConnectionPool, Connection, ConnectionPool, Redis, SSLConnection
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError
from redis.retry import Retry

from shared.settings import Settings

LISTEN_SECONDS = 10
UNBLOCKED = "UNBLOCKED"  # how a server that becomes a replica ends reads that block


class _LeavesReplicas(AbstractConnection):
    """Ends when its server has become a replica, as if it had been cut.

    After a failover the server's name leads to the new primary, but connections that are open stay with the old one,
    which refuses writes for as long as they last. redis-py and kombu both connect again after a ConnectionError.
    """

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        """Read an answer.

        Raises:
            redis.exceptions.ConnectionError: also if the server is a replica.
        """
        try:
            return super().read_response(*arguments, **options)
        except ResponseError as error:
            if not isinstance(error, ReadOnlyError) and not str(error).startswith(UNBLOCKED):
                raise
            self.disconnect()
            raise RedisConnectionError(f"This server is a replica now: {error}") from error


class PrimaryConnection(_LeavesReplicas, Connection):
    """A connection of `redis://`."""


class PrimarySSLConnection(_LeavesReplicas, SSLConnection):
    """A connection of `rediss://`."""


CONNECTION_CLASSES = {"redis": PrimaryConnection, "rediss": PrimarySSLConnection}


def connect_redis(settings: Settings, max_connections: int | None = None) -> Redis:
    """Open a connection pool for commands; fails within about three seconds while Redis is away.

    Args:
        settings: names the server.
        max_connections: so many threads use Redis at once, and further ones wait for their turn; None: no limit.
    """
    options = {
        **_connection_class(settings),
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
        **_connection_class(settings),
        socket_connect_timeout=1,
        socket_timeout=LISTEN_SECONDS + 5,
        retry=Retry(NoBackoff(), retries=0),
    )


def _connection_class(settings: Settings) -> dict[str, Any]:
    scheme = urlsplit(settings.redis_url).scheme
    return {"connection_class": CONNECTION_CLASSES[scheme]} if scheme in CONNECTION_CLASSES else {}
