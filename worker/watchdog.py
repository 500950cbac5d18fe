"""Ends a worker that takes no messages though some wait, so that its supervisor starts it anew.

Celery workers have come to consume nothing after Redis had cut their connections, while they said that they were ready
(celery #8091, #8384, #9054, #10205, #10302: fixed several times, and reported again). Whatever the reason is, it looks
the same from outside: Redis gives a message at once to whoever asks for one, so an idle worker whose queue is not empty
does not ask.
"""

from collections.abc import Sequence
from threading import Event, Thread

from celery.worker import state
from redis import Redis

from shared.queues import queue_key
from worker.heartbeat import end_process, repeat

LOOK_SECONDS = 1.0
# Asking again takes a consumer that works milliseconds. With these, a worker is back within ten seconds.
IDLE_LOOKS = 5


class Watchdog:
    """Looks at the queues of this worker, and at whether it takes anything from them."""

    def __init__(self, redis: Redis, queues: Sequence[str]) -> None:
        """Args:
        redis: has the queues.
        queues: those that the worker serves.
        """
        self._redis = redis
        self._queues = queues
        self._taken = -1
        self._idle_looks = 0

    def watch(self, stopped: Event) -> Thread:
        """Look once a second, in a thread of its own, until `stopped` is set; end the process if it stands still."""

        def look() -> None:
            if waiting := self.look():
                told = ", ".join(f"{count} on {queue}" for queue, count in waiting.items() if count)
                end_process(f"Messages wait ({told}), and this idle worker has taken none for {IDLE_LOOKS} s: it ends")

        return repeat(look, LOOK_SECONDS, stopped, "watchdog")

    def look(self) -> dict[str, int]:
        """Look once.

        Looks are counted, not seconds: when all of the process stood still, it is given time to go on.

        Returns:
            How many messages wait on which queue, once the worker stood still for IDLE_LOOKS in a row; else nothing.

        Raises:
            RedisError: if Redis can't be asked; nobody takes a message then.
        """
        looks, self._idle_looks = self._idle_looks, 0
        waiting = {queue: self._redis.llen(queue_key(queue)) for queue in self._queues}
        taken, before = state.all_total_count[0], self._taken
        self._taken = taken
        if taken != before or state.reserved_requests or state.active_requests or not any(waiting.values()):
            return {}
        self._idle_looks = looks + 1
        return waiting if self._idle_looks >= IDLE_LOOKS else {}
