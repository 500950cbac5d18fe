"""Workers whose connection to Redis breaks, and workers that stand still: real processes of the Procfile."""

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery.worker import state
from redis import Redis

from demo.process import ProcessFailed
from demo.processes import ProcessGroup
from shared.jobs import Jobs
from shared.queues import CALLBACKS, MAINTENANCE, TaskSender, create_celery, queue_key
from shared.schemas import JobKind
from shared.worker_presence import present_workers
from tests.conftest import make_settings
from tests.receiver import Receiver
from tests.servers import RedisProcess, running_redis
from tests.stack import ROOT, WEBHOOK_SECRET, folder_with_app, wait_until
from worker.watchdog import IDLE_LOOKS, Watchdog

RECOVERY_SECONDS = 10
START_SECONDS = 60


class Worker:
    """A callbacks worker, which loads no model, and what it works with."""

    def __init__(self, group: ProcessGroup, server: RedisProcess, folder: Path, receiver: Receiver) -> None:
        self.group = group
        self.server = server
        self.settings = make_settings(server, folder)
        self.redis = Redis.from_url(server.url)
        self.app = create_celery(self.settings, "test")
        self.tasks = TaskSender(self.app)
        self.receiver = receiver
        self._jobs = Jobs(self.redis, self.settings)

    def is_present(self) -> bool:
        return present_workers(self.redis, CALLBACKS) == 1

    def send(self) -> None:
        """Send a message whose task posts to the receiver."""
        job_id = self._jobs.create(JobKind.SEARCH, {}, callback_url=self.receiver.url).id
        self._jobs.cancel(job_id)
        self.tasks.send("deliver_callback", job_id)

    def log(self) -> str:
        return self.group.log("callbacks").read_text()

    def end(self) -> str:
        """Return how it ended; empty while it runs."""
        try:
            self.group.require_alive()
        except ProcessFailed as failure:
            return str(failure)
        return ""


NewWorker = Callable[..., Worker]


@pytest.fixture
def new_worker(tmp_path: Path) -> Iterator[NewWorker]:
    receiver = Receiver()
    with running_redis(tmp_path) as server:
        workers: list[Worker] = []

        def start(root: Path = ROOT, **environment: str) -> Worker:
            ours = {
                "DATABASE_URL": f"sqlite:///{tmp_path}/lookalike.sqlite3",
                "LOOKALIKE_STORE_URL": str(tmp_path / "store"),
                "LOOKALIKE_ALLOW_PRIVATE_URLS": "true",
                "LOOKALIKE_WEBHOOK_SECRET": WEBHOOK_SECRET,
            }
            group = ProcessGroup(
                root,
                tmp_path / "state",
                environment={**ours, **environment},
                processes=["callbacks"],
                redis_url=server.url,
            )
            group.start()
            workers.append(Worker(group, server, tmp_path, receiver))
            wait_until(workers[0].is_present, START_SECONDS, "the worker is ready")
            return workers[0]

        yield start
        for worker in workers:
            worker.group.stop()
            worker.app.close()
            worker.redis.close()
    receiver.close()


def test_celery_8384_a_worker_takes_messages_again_after_its_connections_were_cut_again_and_again(
    new_worker: NewWorker,
) -> None:
    worker = new_worker()
    for burst in range(1, 4):
        for _ in range(8):
            for kind in ("normal", "pubsub"):
                worker.redis.client_kill_filter(_type=kind, skipme=True)
            time.sleep(0.1)  # the fault was seen when connections broke several times within seconds
        worker.send()
        wait_until(lambda: len(worker.receiver.requests) == burst, RECOVERY_SECONDS, "a message is taken")  # noqa: B023
    assert "Connection to broker lost" in worker.log(), "nothing was cut"
    assert worker.end() == ""


def test_a_worker_asks_for_redis_every_two_seconds_however_long_it_is_away(new_worker: NewWorker) -> None:
    worker = new_worker()
    worker.server.kill()

    def pauses() -> list[float]:
        return [float(pause) for pause in re.findall(r"Trying again in ([\d.]+) second", worker.log())]

    wait_until(lambda: len(pauses()) >= 4, START_SECONDS, "it tries to connect")
    assert max(pauses()) <= 2
    worker.server.start()
    worker.send()
    wait_until(lambda: len(worker.receiver.requests) == 1, RECOVERY_SECONDS, "a message is taken")
    assert worker.end() == ""


def test_a_worker_that_is_connected_and_asks_for_no_messages_ends_and_says_why(new_worker: NewWorker) -> None:
    worker = new_worker()
    for queue in (CALLBACKS, MAINTENANCE):
        worker.app.control.cancel_consumer(queue, reply=True, limit=1, timeout=5)
    worker.send()
    wait_until(lambda: bool(worker.end()), RECOVERY_SECONDS, "it ends")
    assert f"callbacks ended with status {os.EX_SOFTWARE}" in worker.end()
    assert "Messages wait (1 on callbacks), and this idle worker has taken none" in worker.log()
    worker.group.restart("callbacks")
    wait_until(lambda: len(worker.receiver.requests) == 1, START_SECONDS, "the next one takes the message")


def test_a_worker_whose_consumer_hangs_ends(new_worker: NewWorker, tmp_path: Path) -> None:
    root, environment = folder_with_app(tmp_path / "root", "tests.hanging_worker")
    worker = new_worker(root, **environment)
    assert worker.end() == ""
    worker.send()
    wait_until(lambda: bool(worker.end()), RECOVERY_SECONDS, "it ends")
    assert f"callbacks ended with status {os.EX_SOFTWARE}" in worker.end()


class Request:
    """A task that runs."""


def test_a_worker_that_has_nothing_to_take_or_its_hands_full_is_left_alone(redis_client: Redis) -> None:
    watchdog = Watchdog(redis_client, [CALLBACKS, MAINTENANCE])

    def looks() -> list[bool]:
        return [bool(watchdog.look()) for _ in range(2 * IDLE_LOOKS)]

    assert not any(looks()), "nothing waits"
    redis_client.lpush(queue_key(MAINTENANCE), "message")
    request = Request()
    state.active_requests.add(request)
    assert not any(looks()), "it is busy"
    state.active_requests.discard(request)
    assert looks() == [False] * (IDLE_LOOKS - 1) + [True] * (IDLE_LOOKS + 1)
    assert watchdog.look() == {CALLBACKS: 0, MAINTENANCE: 1}
    state.all_total_count[0] += 1
    assert looks()[:IDLE_LOOKS] == [False] * IDLE_LOOKS, "it has taken something meanwhile"
