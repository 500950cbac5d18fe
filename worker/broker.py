"""How a worker holds the messages that it has taken and not yet done: in its memory.

kombu's own way is to note each one down in Redis when it comes and to strike it out when it is done, and to give it to
another worker an hour after this one died. That costs more than everything else that Celery does for a task, and
leases of job records bring a dead worker's jobs back in seconds (docs/decisions/0011-micro-batching-and-caches.md).
"""

import logging
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, _transport_cache, redis, virtual

from shared.redis_client import PrimaryConnection, PrimarySSLConnection

log = logging.getLogger(__name__)


class MessagesInMemory(virtual.QoS):
    """The messages at hand. Where a worker ends properly, it gives back those that are not done."""

    def restore_unacked(self) -> list[Any]:
        """Give them back; those that Redis does not take are left to the recovery of their jobs."""
        lost = super().restore_unacked()
        if lost:
            log.warning("Redis did not take back %d messages; their jobs are recovered in a while", len(lost))
        return []  # kombu would write what is named here to a file that nobody looks for


class Channel(redis.Channel):
    """kombu's channel, without acknowledgements in Redis, that follows the primary."""

    ack_emulation = False
    connection_class = PrimaryConnection
    connection_class_ssl = PrimarySSLConnection

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.QoS: Any = MessagesInMemory


class Transport(redis.Transport):
    """kombu's transport, with our channel."""

    Channel = Channel


def hold_messages_in_memory() -> None:
    """Have every Redis connection of Celery in this process use it."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{Transport.__name__}"
        _transport_cache.pop(scheme, None)  # what a connection before this one used is remembered there
