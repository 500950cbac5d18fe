"""Doing things one by one, since one of them seems to kill the worker: a note tells which, and how often."""

import json
from types import TracebackType
from typing import Self

from shared.store import Store

MOST_DEATHS_FACTOR = 10


class OneByOne:
    """What is known of some things of which one seemed to kill the worker. Each is noted before it is begun.

    Use it in a `with` block: what ends the worker after that, or raises, is no thing's fault.

    Attributes:
        is_news: whether the worker's last death is explained only now: things are done one by one for the first
            time, or one was in hand. False after ten times the tries of a thing: then it is not a few things.
    """

    def __init__(self, store: Store, key: str, max_attempts: int) -> None:
        """Args:
        store: keeps the note.
        key: of the note.
        max_attempts: how often a thing may be tried, the first time together with the others.
        """
        self._store = store
        self._key = key
        self._tries = max(1, max_attempts - 1)
        self._most_deaths = MOST_DEATHS_FACTOR * max_attempts
        self._deaths: dict[str, int] = {}
        self.is_news = False

    def __enter__(self) -> Self:
        """Read the note: what was in hand when the worker died has one try less."""
        try:
            with self._store.open(self._key) as file:
                note = json.load(file)
        except FileNotFoundError:
            note = {"deaths": {}, "in_hand": None}
            self.is_news = True
        self._deaths = note["deaths"]
        if note["in_hand"] is not None:
            in_hand = str(note["in_hand"])
            self._deaths[in_hand] = self._deaths.get(in_hand, 0) + 1
            self.is_news = sum(self._deaths.values()) <= self._most_deaths
        self._write(None)
        return self

    def may_begin(self, thing: str) -> bool:
        """Note that a thing is in hand now; False if the worker has died over it as often as it may."""
        if self._deaths.get(thing, 0) >= self._tries:
            return False
        self._write(thing)
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Note that nothing is in hand, unless the job was ended meanwhile and its note is gone."""
        if self._store.exists(self._key):
            self._write(None)

    def _write(self, in_hand: str | None) -> None:
        with self._store.writing(self._key) as file:
            file.write(json.dumps({"deaths": self._deaths, "in_hand": in_hand}).encode())
