"""What one search costs Redis, command by command, with the processes of the Procfile.

docs/decisions/0010-few-round-trips.md says what each command is for; one that comes to be needed is added there too.
"""

import random
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
import requests
from PIL import Image
from redis import Redis

from demo.processes import ProcessGroup
from tests.servers import RedisProcess
from tests.stack import ROOT, Stack, wait_until

QUEUE = "lookalike:queue:"
# What a process does now and then, whether or not anybody searches.
UPKEEP = (
    "PING",
    "ZADD lookalike:workers:",
    "SET lookalike:worker:",
    "HINCRBYFLOAT lookalike:searches:steps",
    "LLEN",
    "HELLO",
    "CLIENT",
    "AUTH",
    "SELECT",
)
MARKER = "round-trips"
BLOCKED_WHILE_IDLE = 2  # web's listener and the worker's consumer

FRESH = {"Cache-Control": "no-cache"}
ACCEPT = ["MULTI", "HSET job", "EXPIRE job", "SET job:image", "ZADD jobs:active", "LPUSH queue", "EXEC"]
COLD = {
    "web": [*ACCEPT, "HGETALL job", "XREAD jobs:finished"],
    "celery": ["BRPOP queue"],
    "worker": ["EVALSHA start", "EVALSHA finish"],
}
# The same with a look into the caches first, at both ends.
MISSED = {
    "web": ["GET result", *COLD["web"]],
    "celery": COLD["celery"],
    "worker": ["EVALSHA start", "MGET result", "EVALSHA finish"],
}
REPEATED = {"web": ["GET result", "MULTI", "HSET job", "EXPIRE job", "HINCRBY jobs:counts", "EXEC"]}
REMEMBERED = {"web": REPEATED["web"][1:]}

# Beside the photo: record, message, result twice, the embedding for the cache, the protocol, what this test asks.
OVERHEAD_BYTES = 24 * 1024


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, own_redis: RedisProcess) -> Iterator[Stack]:
    """A web process and a search worker with an empty catalogue; no beat, no other workers."""
    folder = tmp_path_factory.mktemp("round-trips")
    environment = {
        "DATABASE_URL": f"sqlite:///{folder}/lookalike.sqlite3",
        "LOOKALIKE_STORE_URL": str(folder / "store"),
        "LOOKALIKE_ENCODER_CACHE_PATH": str(folder / "encoders"),
        "LOOKALIKE_JOB_LEASE_SECONDS": "60",  # a lease that is renewed would count
    }
    options: dict[str, Any] = {"environment": environment, "redis_url": own_redis.url}
    with ProcessGroup(ROOT, folder / "state", processes=["web", "search"], **options) as group:
        stack = Stack(group)
        search(stack, photo(0), {})  # connections, scripts, the model: what comes once
        yield stack


def photo(number: int) -> bytes:
    """Return a JPEG of noise; each number gives another."""
    noise = Image.frombytes("L", (400, 500), random.Random(number).randbytes(400 * 500)).convert("RGB")
    file = BytesIO()
    noise.save(file, "JPEG", quality=60)
    return file.getvalue()


def search(stack: Stack, image: bytes, headers: dict[str, str]) -> dict[str, Any]:
    """Search, and wait until nothing of it is left to do for anybody."""
    headers = {"Prefer": "wait=20", **headers}
    answer = requests.post(f"{stack.base_url}/v1/searches", files={"image": image}, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    assert job["status"] == "succeeded", job
    return job


def commands_of(stack: Stack, own_redis_client: Redis, image: bytes, headers: dict[str, str]) -> dict[str, list[str]]:
    """Search, and return the commands that Redis got for it, by who sent them."""
    all_idle(own_redis_client)
    with own_redis_client.monitor() as monitor:
        search(stack, image, headers)
        all_idle(own_redis_client)
        own_redis_client.echo(MARKER)
        return by_sender(list(commands_until_marker(monitor)))


def bytes_of(stack: Stack, own_redis_client: Redis, image: bytes, headers: dict[str, str]) -> tuple[int, int]:
    """Search, and return how many bytes came to Redis and left it meanwhile."""
    all_idle(own_redis_client)
    before = own_redis_client.info("stats")
    search(stack, image, headers)
    all_idle(own_redis_client)
    after = own_redis_client.info("stats")
    names = ("total_net_input_bytes", "total_net_output_bytes")
    into, out = (after[name] - before[name] for name in names)
    return into, out


def all_idle(own_redis_client: Redis) -> None:
    """Wait until nobody has anything to do any more."""

    wait_until(
        lambda: own_redis_client.info("clients")["blocked_clients"] == BLOCKED_WHILE_IDLE, 20, "all processes wait"
    )


def commands_until_marker(monitor: Any) -> Iterator[tuple[str, str]]:
    """Yield (sender's address, command) of all that the processes sent."""
    for entry in monitor.listen():
        command = entry["command"]
        if MARKER in command:
            return
        if entry["client_type"] != "lua" and not command.startswith(("INFO", *UPKEEP)):
            yield f"{entry['client_address']}:{entry['client_port']}", command


def by_sender(seen: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the commands by who sent them, sorted: each process has its own connections, and so has kombu."""
    connections: dict[str, list[str]] = {}
    for address, command in seen:
        connections.setdefault(address, []).append(named(command))
    senders: dict[str, list[str]] = {}
    for commands in connections.values():
        if {"LPUSH queue", "XREAD jobs:finished", "HGETALL job", "GET result", "HINCRBY jobs:counts"} & set(commands):
            sender = "web"
        else:
            sender = "celery" if any(command.endswith(" queue") for command in commands) else "worker"
        senders[sender] = sorted(senders.get(sender, []) + commands)
    return senders


def in_order(commands: dict[str, list[str]]) -> dict[str, list[str]]:
    return {sender: sorted(names) for sender, names in commands.items()}


def named(command: str) -> str:
    """Return a command's name, and what kind of key it is for."""
    name, _, rest = command.partition(" ")
    if name == "EVALSHA":
        return "EVALSHA finish" if "succeeded" in rest else "EVALSHA start"
    key = next((word for word in rest.split(" ") if word.startswith("lookalike:")), "").removeprefix("lookalike:")
    if key.startswith("queue:"):
        key = "queue"
    elif key.startswith("job:"):
        key = "job:image" if key.endswith(":image") else "job"
    elif key.startswith("result:"):
        key = "result"
    return f"{name} {key}".strip()


def test_a_fresh_search_takes_no_more_commands_than_it_needs(stack: Stack, own_redis_client: Redis) -> None:
    assert commands_of(stack, own_redis_client, photo(1), FRESH) == in_order(COLD)


def test_a_search_that_may_be_answered_from_a_cache_asks_once_at_each_end(
    stack: Stack, own_redis_client: Redis
) -> None:
    assert commands_of(stack, own_redis_client, photo(2), {}) == in_order(MISSED)


def test_a_repeated_search_takes_two_round_trips_and_no_worker_then_one(stack: Stack, own_redis_client: Redis) -> None:
    search(stack, photo(3), {})
    assert commands_of(stack, own_redis_client, photo(3), {}) == in_order(REPEATED)
    assert commands_of(stack, own_redis_client, photo(3), {}) == in_order(REMEMBERED)


@pytest.mark.parametrize("headers", [FRESH, {}], ids=["fresh", "missed"])
def test_the_bytes_of_a_photo_go_to_redis_once_and_leave_it_once_and_do_not_stay(
    stack: Stack, own_redis_client: Redis, headers: dict[str, str]
) -> None:
    image = photo(4 + len(headers))
    for moved in bytes_of(stack, own_redis_client, image, headers):
        assert len(image) < moved < len(image) + OVERHEAD_BYTES
    assert own_redis_client.keys("lookalike:job:*:image") == []


def test_a_repeated_photo_does_not_go_to_redis_at_all(stack: Stack, own_redis_client: Redis) -> None:
    image = photo(6)
    assert len(image) > 2 * OVERHEAD_BYTES, "else this test shows nothing"
    search(stack, image, {})
    for moved in bytes_of(stack, own_redis_client, image, {}):
        assert moved < OVERHEAD_BYTES
