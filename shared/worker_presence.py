"""Which workers are there.

Key (prefix `lookalike:`):
    workers:{queue}  zset  name of a worker that is ready -> unix time until which it counts as present.
"""

import time

from redis import Redis

PRESENCE_SECONDS = 6


def _key(queue: str) -> str:
    return f"lookalike:workers:{queue}"


def announce_worker(redis: Redis, queue: str, name: str) -> None:
    """Count a worker as present for the next seconds; call it again before they have passed."""
    redis.zadd(_key(queue), {name: time.time() + PRESENCE_SECONDS})


def withdraw_worker(redis: Redis, queue: str, name: str) -> None:
    """Stop counting a worker that ends."""
    redis.zrem(_key(queue), name)


def present_workers(redis: Redis, queue: str) -> int:
    """Return how many workers serve a queue."""
    redis.zremrangebyscore(_key(queue), 0, time.time() - 3600)
    return redis.zcount(_key(queue), time.time(), "+inf")
