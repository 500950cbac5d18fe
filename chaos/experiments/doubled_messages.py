"""Every task message twice, as a broker that delivers at least once may give it."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import cast

from redis import Redis

from chaos.experiment import Experiment
from chaos.trial import Trial
from shared.queues import BULK, SEARCH, create_celery, queue_key
from shared.settings import Settings
from shared.task_message import TaskMessages

LOOK_SECONDS = 0.01
EXTRA_DELIVERIES = 3


def run(trial: Trial) -> None:
    """Double the messages of searches, of an import with all of its chunks, and of webhooks."""
    scale, group = trial.scale, trial.system.group
    with trial.system.redis() as client:
        trial.say("messages of searches, twice")
        group.kill("search", signal.SIGSTOP)
        hooks = [f"/ok/doubled/{number}" for number in range(scale.doubled)]
        jobs = [
            trial.search(f"doubled/{number}", callback_url=f"http://doubled.shop.example{hook}")
            for number, hook in enumerate(hooks)
        ]
        messages = cast("list[bytes]", client.lrange(queue_key(SEARCH), 0, -1))
        client.lpush(queue_key(SEARCH), *messages)
        group.kill("search", signal.SIGCONT)
        for job_id in jobs:
            trial.finished(job_id, 60)
        _send_deliveries(trial, client, jobs)
        trial.say("messages of an import, twice")
        with _doubled(client) as doubled:
            trial.check_import(trial.send_import("doubled", scale.side_rows), "doubled", scale.side_rows, 300)
    is_posted = trial.wait_for(lambda: all(trial.receiver.tries(hook) for hook in hooks), 90)
    trial.require(is_posted, "a webhook never came")
    repeated = [hook for hook in hooks if trial.receiver.tries(hook) > 1]
    trial.require(not repeated, f"webhooks that were received were posted again: {repeated[:5]}")
    # One message may have been on its way to the worker when that was stopped.
    trial.require(len(messages) >= scale.doubled - 1, f"{len(messages)} messages of searches only could be doubled")
    trial.require(bool(doubled), "no message of the import could be doubled")
    trial.record.figures |= {"messages_doubled": len(messages) + len(doubled) + EXTRA_DELIVERIES * len(jobs)}


def _send_deliveries(trial: Trial, client: Redis, jobs: list[str]) -> None:
    """Send the messages of webhooks again and again, built as web builds messages."""
    celery = create_celery(Settings(_env_file=None, REDIS_URL=trial.system.group.redis_url), "chaos")
    messages = TaskMessages(celery)
    for _ in range(EXTRA_DELIVERIES):
        for job_id in jobs:
            message = messages.of("deliver_callback", job_id)
            client.lpush(message.key, message.text)


@contextmanager
def _doubled(client: Redis) -> Iterator[set[str]]:
    """Send each message of the bulk queue a second time as soon as it waits there; gives the ids of those."""
    seen: set[str] = set()
    is_over = Event()

    def look() -> None:
        while not is_over.is_set():
            for text in cast("list[bytes]", client.lrange(queue_key(BULK), 0, -1)):
                message_id = json.loads(text)["headers"]["id"]
                if message_id not in seen:
                    seen.add(message_id)
                    client.lpush(queue_key(BULK), text)
            time.sleep(LOOK_SECONDS)

    thread = Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join(10)


EXPERIMENT = Experiment(
    "doubled-messages",
    "Every message of searches and of an import with its chunks is sent twice, that of each webhook four times.",
    "Each job has one outcome, each row counts once, each webhook that was received is posted once.",
    run,
)
