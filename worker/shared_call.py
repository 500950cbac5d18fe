"""One call for all who ask at the same time."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

Result = TypeVar("Result")


class SharedCall(Generic[Result]):
    """Runs a function once for many threads; each gets the outcome of a run that began after it had asked.

    What was so when a thread asked is therefore seen by the run whose outcome it gets.
    """

    def __init__(self, run: Callable[[], Result]) -> None:
        self._run = run
        self._choosing = Lock()
        self._running = Lock()
        self._next: Future[Result] | None = None

    def __call__(self) -> Result:
        """Return what the run returned, or raise what it raised, to all whom it serves."""
        with self._choosing:
            leads = self._next is None
            self._next = outcome = self._next or Future()
        if leads:
            with self._running:
                with self._choosing:
                    self._next = None  # who asks from now on needs another run
                try:
                    outcome.set_result(self._run())
                except BaseException as error:
                    outcome.set_exception(error)
                    raise
        return outcome.result()
