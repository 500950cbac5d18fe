"""Messages that web puts on a queue itself: what Celery would send, and what a real worker runs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from redis import Redis

from shared.queues import SENT_AT, TASK_QUEUES, TaskSender, create_celery, queue_key
from shared.settings import Settings
from shared.task_message import TaskMessages
from tests.stack import ROOT, wait_until

# Each message has its own.
IDS = {
    ("headers", "id"),
    ("headers", "root_id"),
    ("headers", SENT_AT),
    ("properties", "correlation_id"),
    ("properties", "delivery_tag"),
}

WORKER = """
from celery import signals
from redis import Redis
from shared.queues import create_celery
from shared.settings import load_settings

settings = load_settings()
app = create_celery(settings, "worker")
signals.worker_ready.connect(lambda **_: Redis.from_url(settings.redis_url).set("ready", 1), weak=False)

@app.task(name="import_chunk")
def import_chunk(job_id, number):
    Redis.from_url(settings.redis_url).rpush("done", f"{job_id} {number}")

app.worker_main(["worker", "--queues", "bulk", "--pool", "solo", "--without-gossip", "--without-mingle"])
"""


def parts(message: dict[str, Any]) -> dict[tuple[str, ...], Any]:
    """Return the fields of a message by their paths, without those that are other in each message."""
    found: dict[tuple[str, ...], Any] = {}
    for name, value in message.items():
        if isinstance(value, dict):
            found |= {(name, inner): content for inner, content in value.items()}
        else:
            found[(name,)] = value
    assert found.keys() >= IDS
    return {path: value for path, value in found.items() if path not in IDS}


@pytest.mark.parametrize("task", TASK_QUEUES)
def test_a_message_is_what_celery_sends_field_by_field(task: str, redis_client: Redis, settings: Settings) -> None:
    arguments = ("0123456789abcdef0123456789abcdef", 7)
    with create_celery(settings, "test") as app:
        TaskSender(app).send(task, *arguments)
        message = TaskMessages(app).of(task, *arguments)
    assert message.key == queue_key(TASK_QUEUES[task])
    celerys = json.loads(redis_client.lrange(message.key, 0, -1)[0])
    ours = json.loads(message.text)
    assert list(ours) == list(celerys)
    assert parts(ours) == parts(celerys)
    for message_ in (ours, celerys):
        assert time.time() - 60 < message_["headers"][SENT_AT] <= time.time()
        assert message_["headers"]["id"] == message_["headers"]["root_id"] == message_["properties"]["correlation_id"]


def test_no_two_messages_share_an_id(settings: Settings) -> None:
    with create_celery(settings, "test") as app:
        messages = [json.loads(TaskMessages(app).of("search", "a").text) for _ in range(3)]
    assert len({message["headers"]["id"] for message in messages}) == 3
    assert len({message["properties"]["delivery_tag"] for message in messages}) == 3


def test_a_worker_runs_it_and_acknowledges_it_though_no_sender_ever_declared_the_queue(
    redis_client: Redis, settings: Settings, tmp_path: Path
) -> None:
    message = TaskMessages(Celery("sender", broker=settings.redis_url)).of("import_chunk", "röt", 7)
    redis_client.lpush(message.key, message.text)
    assert redis_client.keys("*") == [message.key.encode()], "there is no binding"
    (tmp_path / "worker.py").write_text(WORKER)
    environment = {**os.environ, "REDIS_URL": settings.redis_url, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "worker.py")], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
    ) as worker:
        try:
            wait_until(lambda: redis_client.lrange("done", 0, -1) == ["röt 7".encode()], 60, "the task has run")
            wait_until(lambda: redis_client.hlen("lookalike:queue:unacked") == 0, 20, "the message is acknowledged")
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(30)
    assert redis_client.llen("done") == 1
