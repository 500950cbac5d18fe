"""Preparing the rows of a chunk one by one, since one of them seems to kill the worker.

In the store, beside the chunk's rows:
    imports/{job id}/{chunk}.alone.json   the line in hand, and how often the worker died over which line
"""

import json
from collections.abc import Callable, Sequence

from shared.errors import WorkerLost
from shared.store import Store
from worker.imports.intake import Prepared
from worker.imports.plan import chunk_key
from worker.imports.rows import CatalogueRow

Prepare = Callable[[Sequence[CatalogueRow]], Prepared]


class RowsAlone:
    """What is known of the rows of one chunk whose worker died. The note is written before each row is begun."""

    def __init__(self, store: Store, job_id: str, number: int, max_attempts: int) -> None:
        """Args:
        store: keeps the note.
        job_id: the import.
        number: of the chunk.
        max_attempts: how often a row may be tried, the first time together with the others.
        """
        self._store = store
        self._key = chunk_key(job_id, number).replace(".ndjson", ".alone.json")
        self._max_attempts = max_attempts
        self._tries = max(1, max_attempts - 1)

    def prepare(self, rows: Sequence[CatalogueRow], prepare: Prepare) -> Prepared:
        """Prepare one row after the other, but for those over which the worker died as often as it may.

        Args:
            rows: of the chunk.
            prepare: prepares some of them; a worker that dies over a row never returns from it.

        Returns:
            What `prepare` gave for the rows, together; a row that is given up is rejected with WorkerLost.
        """
        deaths, in_hand = self._read()
        if in_hand is not None:
            deaths[in_hand] = deaths.get(in_hand, 0) + 1
        together = Prepared()
        try:
            for row in rows:
                if deaths.get(row.line, 0) >= self._tries:
                    detail = f"The worker died each time it read this row, {self._max_attempts} times in all."
                    together.rejected.append((row, WorkerLost(f"{detail} Look at its photos.")))
                    continue
                self._write(deaths, row.line)
                alone = prepare([row])
                together.items += alone.items
                together.rejected += alone.rejected
                together.vectors |= alone.vectors
        finally:
            self._write(deaths, None)  # whatever ends the worker from here on, it is no row's fault
        return together

    def _read(self) -> tuple[dict[int, int], int | None]:
        try:
            with self._store.open(self._key) as file:
                note = json.load(file)
        except FileNotFoundError:
            return {}, None
        return {int(line): count for line, count in note["deaths"].items()}, note["in_hand"]

    def _write(self, deaths: dict[int, int], in_hand: int | None) -> None:
        with self._store.writing(self._key) as file:
            file.write(json.dumps({"deaths": deaths, "in_hand": in_hand}).encode())
