"""Which workers are there, and how they are.

Keys (prefix `lookalike:`):
    workers:{queue}  zset    name of a worker that is ready -> unix time until which it counts as present.
    worker:{name}    string  JSON WorkerState. Expires when the worker has not been heard of for a while.
"""

import time
from collections.abc import Sequence
from typing import cast

from pydantic import BaseModel
from redis import Redis

PRESENCE_SECONDS = 6


class WorkerState(BaseModel):
    """What a worker tells of itself."""

    name: str  # host and process
    queues: list[str]
    memory_bytes: int  # resident, with its child processes
    tasks: int  # at hand


def _key(queue: str) -> str:
    return f"lookalike:workers:{queue}"


def _state_key(name: str) -> str:
    return f"lookalike:worker:{name}"


def announce_worker(redis: Redis, state: WorkerState) -> None:
    """Count a worker as present for the next seconds; call it again before they have passed. A pipeline will do."""
    for queue in state.queues:
        redis.zadd(_key(queue), {state.name: time.time() + PRESENCE_SECONDS})
    redis.set(_state_key(state.name), state.model_dump_json(), ex=PRESENCE_SECONDS)


def withdraw_worker(redis: Redis, queues: Sequence[str], name: str) -> None:
    """Stop counting a worker that ends."""
    for queue in queues:
        redis.zrem(_key(queue), name)
    redis.delete(_state_key(name))


def present_workers(redis: Redis, queue: str) -> int:
    """Return how many workers serve a queue."""
    redis.zremrangebyscore(_key(queue), 0, time.time() - 3600)
    return redis.zcount(_key(queue), time.time(), "+inf")


def present_names(redis: Redis, queue: str) -> list[bytes]:
    """Return the names of the workers that serve a queue; of a pipeline, in its answer."""
    return cast("list[bytes]", redis.zrangebyscore(_key(queue), time.time(), "+inf"))


def worker_states(redis: Redis, names: Sequence[bytes]) -> list[WorkerState]:
    """Return what workers tell of themselves; those that are gone meanwhile are left out."""
    if not names:
        return []
    texts = cast("list[bytes | None]", redis.mget([_state_key(name.decode()) for name in names]))
    return [WorkerState.model_validate_json(text) for text in texts if text is not None]
