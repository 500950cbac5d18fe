"""How far a training is: bars on a terminal, lines elsewhere."""

from collections.abc import Callable
from time import monotonic
from typing import Any

from rich.console import Console
from rich.progress import Progress

SAID_SECONDS = 20


class Bars:
    """One bar for each step, with the time it will still take; elsewhere than on a terminal, a line now and then."""

    def __init__(self, console: Console, bars: Progress) -> None:
        self._console = console
        self._bars = bars
        self._task: Any = None
        self._done = 0
        self._said = monotonic()

    def shown(self, step: str) -> Callable[[int, int], None]:
        """Return what is told how far a step is; who is told less than before begins a new bar."""

        def tell(done: int, total: int) -> None:
            if self._bars.disable:
                if monotonic() > self._said + SAID_SECONDS:
                    self._said = monotonic()
                    self._console.print(f"{step}: {done} of {total}", highlight=False)
                return
            if self._task is None or done <= self._done:
                if self._task is not None:
                    self._bars.remove_task(self._task)
                self._task = self._bars.add_task(step)
            self._done = done
            self._bars.update(self._task, description=step, completed=done, total=total)

        return tell
