"""Tasks of a search worker of which only some may run together.

Those that fetch images by URL: a slow host holds a thread, and others need threads too. And those of jobs whose worker
died: one of them is perhaps why, and shall take no other of them along.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from shared.jobs import Jobs
from shared.queues import TaskSender

# Short, since it holds a thread as well; but many tasks that are sent back at once would keep Redis busy.
WAIT_SECONDS = 0.2


class Turns:
    """Turns of jobs of which so many may run together. Threads share it."""

    def __init__(self, limit: int) -> None:
        self._free = BoundedSemaphore(limit)

    def run(self, task: str, job_id: str, work: Callable[[str], None], jobs: Jobs, tasks: TaskSender) -> None:
        """Do the work of a task; or send its message again, behind all others, if it is not the job's turn.

        Args:
            task: its name tells that it needs a turn, and no record is read to tell.
            job_id: id of the job.
            work: does it, or finds that it has ended.
            jobs: the job records.
            tasks: sends the message again.
        """
        with self._turn() as may_run:
            if may_run:
                work(job_id)
            else:
                jobs.renew(job_id)  # else recovery might take the message for lost, and send another
                tasks.send(task, job_id)

    @contextmanager
    def _turn(self) -> Iterator[bool]:
        may_run = self._free.acquire(timeout=WAIT_SECONDS)
        try:
            yield may_run
        finally:
            if may_run:
                self._free.release()
