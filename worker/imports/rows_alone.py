"""Preparing the rows of a chunk one by one, since one of them seems to kill the worker.

In the store, beside the chunk's rows:
    imports/{job id}/{chunk}.alone.json   the line in hand, and how often the worker died over which line
"""

from collections.abc import Callable, Sequence

from shared.errors import WorkerLost
from shared.store import Store
from worker.imports.intake import Prepared
from worker.imports.plan import chunk_key
from worker.imports.rows import CatalogueRow
from worker.one_by_one import OneByOne

Prepare = Callable[[Sequence[CatalogueRow]], Prepared]


def prepare_alone(
    store: Store, job_id: str, number: int, max_attempts: int, rows: Sequence[CatalogueRow], prepare: Prepare
) -> Prepared:
    """Prepare one row after the other, but for those over which the worker died as often as it may.

    Args:
        store: keeps the note.
        job_id: the import.
        number: of the chunk.
        max_attempts: how often a row may be tried, the first time together with the others.
        rows: of the chunk.
        prepare: prepares some of them; a worker that dies over a row never returns from it.

    Returns:
        What `prepare` gave for the rows, together; a row that is given up is rejected with WorkerLost.
    """
    together = Prepared()
    with OneByOne(store, chunk_key(job_id, number).replace(".ndjson", ".alone.json"), max_attempts) as rows_alone:
        for row in rows:
            if not rows_alone.may_begin(str(row.line)):
                detail = f"The worker died each time it read this row, {max_attempts} times in all."
                together.rejected.append((row, WorkerLost(f"{detail} Look at its photos.")))
                continue
            alone = prepare([row])
            together.items += alone.items
            together.rejected += alone.rejected
            together.vectors |= alone.vectors
    return together
