"""Micro-batching: many threads hand in one item each, and few threads work on all that wait together."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Condition, Lock, Thread
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


class MicroBatcher(Generic[In, Out]):
    """Runs `run` on all items that wait, at most `max_items` at once, as soon as one of its threads is free.

    There is no timer. An item that comes while a thread is free is run at once, alone; those that come while all are
    busy are the next batch. So batches grow with the load by themselves, and nobody waits for company.
    """

    def __init__(
        self,
        run: Callable[[Sequence[In]], Sequence[Out]],
        *,
        max_items: int,
        max_waiting: int,
        name: str,
        threads: int = 1,
    ) -> None:
        """Start the threads.

        Args:
            run: gives one output for each item, in their order. Called by so many threads at once as there are.
            max_items: most items of one batch, >= 1.
            max_waiting: most items that wait; `submit` blocks while there are so many, >= 1.
            name: of the threads.
            threads: most batches that run side by side, >= 1.
        """
        if max_items < 1 or max_waiting < 1 or threads < 1:
            raise ValueError(
                f"max_items, max_waiting and threads must be at least 1, not {max_items}, {max_waiting} and {threads}"
            )
        self._run = run
        self._name = name
        self._max_items = max_items
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[In, Future[Out]]] = deque()
        self._is_closed = False
        lock = Lock()
        self._has_items = Condition(lock)
        self._has_room = Condition(lock)
        for number in range(threads):
            Thread(target=self._loop, name=f"{name}-{number}", daemon=True).start()

    def __len__(self) -> int:
        """Return how many items wait; those of the running batch do not."""
        return len(self._waiting)

    def submit(self, item: In) -> Future[Out]:
        """Hand in one item; blocks while `max_waiting` others wait.

        Returns:
            The future of its output, or of the error that `run` raised for it alone. One that is cancelled before
            its batch begins is never run.

        Raises:
            RuntimeError: if the batcher was closed.
        """
        future: Future[Out] = Future()
        with self._has_room:
            while len(self._waiting) >= self._max_waiting and not self._is_closed:
                self._has_room.wait()
            if self._is_closed:
                raise RuntimeError(f"{self._name} was closed")
            self._waiting.append((item, future))
            self._has_items.notify()
        return future

    def close(self) -> None:
        """Take no further items; those that wait are still run, then the threads end. Does not wait for them."""
        with self._has_items:
            self._is_closed = True
            self._has_items.notify_all()
            self._has_room.notify_all()

    def _loop(self) -> None:
        while True:
            with self._has_items:
                while not self._waiting and not self._is_closed:
                    self._has_items.wait()
                if not self._waiting:
                    return
                batch = self._next_batch()
                self._has_room.notify_all()
            if batch:
                self._run_batch(batch)
            del batch  # else the last items stay in memory until the next ones come

    def _next_batch(self) -> list[tuple[In, Future[Out]]]:
        batch: list[tuple[In, Future[Out]]] = []
        while self._waiting and len(batch) < self._max_items:
            item, future = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                batch.append((item, future))
        return batch

    def _run_batch(self, batch: Sequence[tuple[In, Future[Out]]]) -> None:
        try:
            outputs = self._run([item for item, _ in batch])
            if len(outputs) != len(batch):
                raise RuntimeError(f"{self._name} got {len(outputs)} outputs for {len(batch)} items")
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait for the output get it
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:
                for single in batch:
                    self._run_batch([single])
            return
        for (_, future), output in zip(batch, outputs, strict=True):
            future.set_result(output)
