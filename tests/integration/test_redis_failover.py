"""A Redis that becomes a replica while we are connected to it."""

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from celery import Celery
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from demo.ports import free_port
from shared.queues import QUEUES, TaskSender, create_celery, queue_key
from shared.redis_client import connect_redis, connect_redis_for_listening
from shared.settings import Settings
from tests.conftest import make_settings
from tests.servers import RedisProcess, running_redis
from worker.broker import hold_messages_in_memory


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    folder = tmp_path / "redis"
    folder.mkdir()
    with running_redis(folder) as process:
        yield process


@pytest.fixture
def settings(server: RedisProcess, tmp_path: Path) -> Settings:
    return make_settings(server, tmp_path)


@pytest.fixture
def operator(server: RedisProcess) -> Iterator[Redis]:
    with Redis.from_url(server.url) as client:
        yield client


def demote(operator: Redis) -> None:
    operator.replicaof("127.0.0.1", str(free_port()))


def promote(operator: Redis) -> None:
    operator.replicaof("NO", "ONE")


@pytest.mark.parametrize("is_transaction", [False, True])
def test_a_refused_write_ends_the_connection(settings: Settings, operator: Redis, is_transaction: bool) -> None:
    with connect_redis(settings) as client:
        client.set("a", "1")
        before = client.client_id()
        demote(operator)
        with pytest.raises(RedisConnectionError, match="is a replica now"):
            client.set("a", "2")
        with pytest.raises(RedisConnectionError, match="is a replica now"), client.pipeline(is_transaction) as pipe:
            pipe.get("a").set("a", "3").execute()
        promote(operator)
        client.set("a", "4")
        assert client.client_id() != before, "only a new connection can lead to another server"


def test_a_script_that_writes_ends_it_too(settings: Settings, operator: Redis) -> None:
    with connect_redis(settings) as client:
        script = client.register_script("redis.call('SET', 'a', '1')")
        script()
        demote(operator)
        with pytest.raises(RedisConnectionError, match="is a replica now"):
            script()


def test_a_read_that_blocks_ends_with_the_connection(settings: Settings, operator: Redis) -> None:
    ended: list[Exception] = []

    def listen() -> None:
        with connect_redis_for_listening(settings) as client:
            try:
                client.blpop(["nothing"], timeout=9)
            except RedisConnectionError as error:
                ended.append(error)

    thread = Thread(target=listen)
    thread.start()
    deadline = time.monotonic() + 5
    while not operator.info("clients")["blocked_clients"] and time.monotonic() < deadline:
        time.sleep(0.02)
    demote(operator)
    thread.join(5)
    assert ended
    assert "is a replica now" in str(ended[0])


@pytest.fixture
def app(settings: Settings) -> Iterator[Celery]:
    hold_messages_in_memory()
    with create_celery(settings, "test") as app:
        yield app


def test_a_message_that_a_replica_refuses_is_a_failure_of_redis_and_the_next_one_is_sent(
    app: Celery, operator: Redis
) -> None:
    tasks = TaskSender(app)
    tasks.send("clean_up")
    demote(operator)
    with pytest.raises(RedisConnectionError, match="could not be sent"):
        tasks.send("clean_up")
    promote(operator)
    tasks.send("clean_up")
    assert sum(operator.llen(queue_key(queue)) for queue in QUEUES) == 2
