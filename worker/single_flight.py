"""Single flight: what several threads want at once is made once, by the first of them."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class SingleFlight(Generic[Key, Value]):
    """Makes values that depend on nothing but their key, and remembers the last ones for those who come late.

    Late is who looked into a slower cache before the value was written there, and asks here after it was made.
    """

    def __init__(self, remembered: int) -> None:
        """Args:
        remembered: how many finished values are kept, >= 0.
        """
        self._remembered = remembered
        self._lock = Lock()
        self._flights: dict[Key, Future[Value]] = {}
        self._known: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key, make: Callable[[], Value], wait: Callable[[Future[Value]], Value]) -> tuple[Value, bool]:
        """Return the value of a key, and whether this call made it.

        Args:
            key: what `make` depends on.
            make: makes the value. Its error is this caller's alone, since it may be that this caller gave up:
                the next one tries anew.
            wait: waits for the value that another thread makes, and returns it; may raise to give up, but must not
                cancel the future, which others wait for too.

        Raises:
            Exception: what `make` or `wait` raises.
        """
        while True:
            with self._lock:
                if key in self._known:
                    return self._known[key], False
                flight = self._flights.get(key)
                if flight is None:
                    own = self._flights[key] = Future()
            if flight is None:
                return self._make(key, make, own), True
            try:
                return wait(flight), False
            except CancelledError:
                continue

    def _make(self, key: Key, make: Callable[[], Value], own: Future[Value]) -> Value:
        try:
            value = make()
        except BaseException:
            with self._lock:
                del self._flights[key]
            own.cancel()
            raise
        with self._lock:
            del self._flights[key]
            self._known[key] = value
            if len(self._known) > self._remembered:
                self._known.popitem(last=False)
        own.set_result(value)
        return value
