"""The files of a batch search in the store.

    batches/{job id}/queries.ndjson    the queries, where no request brought them: of all items
    batches/{job id}/plan.json         where in the queries each part begins
    batches/{job id}/state.json        a BatchState: how far it is
    batches/{job id}/answered.json     the same, once all queries are answered
    batches/{job id}/{part}.ndjson     the answers of some queries, in their order, from part 0
    batches/{job id}/{part}.alone.json the query in hand, and how often the worker died over which

Each is written aside and renamed in. What tells the answers stays until the job's record expires. Two workers may be at
work here, one of them taken for dead: a state may go back, the parts are the same (but for a query that only one of
them gives up), and `answered.json` is final.
"""

import json
from dataclasses import asdict, dataclass

from shared.job_record import JobRecord, json_bytes
from shared.schemas import JobStatus
from shared.store import Store

FOLDER = "batches"


@dataclass(frozen=True)
class BatchState:
    """What is done of a batch search.

    Attributes:
        parts: how many are written.
        queries: that these answer.
        failed: those of them that have an error.
        releases: that answered, in order.
    """

    parts: int = 0
    queries: int = 0
    failed: int = 0
    releases: tuple[str, ...] = ()


def batch_folder(job_id: str) -> str:
    """Return the prefix of all that a batch search keeps."""
    return f"{FOLDER}/{job_id}"


def queries_key(job: JobRecord) -> str:
    """Return the key of a job's queries."""
    return str(job.parameters.get("upload") or f"{batch_folder(job.id)}/queries.ndjson")


def plan_key(job_id: str) -> str:
    """Return the key of where each part begins."""
    return f"{batch_folder(job_id)}/plan.json"


def part_key(job_id: str, number: int) -> str:
    """Return the key of some answers."""
    return f"{batch_folder(job_id)}/{number:06d}.ndjson"


def alone_key(job_id: str, number: int) -> str:
    """Return the key of what is known of queries of a part that seem to kill the worker."""
    return f"{batch_folder(job_id)}/{number:06d}.alone.json"


def _state_key(job_id: str) -> str:
    return f"{batch_folder(job_id)}/state.json"


def _answered_key(job_id: str) -> str:
    return f"{batch_folder(job_id)}/answered.json"


def read_state(store: Store, job_id: str) -> BatchState | None:
    """Return how far a batch search is; None if nothing is written."""
    return _read(store, _state_key(job_id))


def write_state(store: Store, job_id: str, state: BatchState) -> None:
    """Note how far a batch search is."""
    _write(store, _state_key(job_id), state)


def read_answered(store: Store, job_id: str) -> BatchState | None:
    """Return what there is of a batch search whose queries are all answered; None if it is not, or not any more."""
    return _read(store, _answered_key(job_id))


def write_answered(store: Store, job_id: str, state: BatchState) -> None:
    """Note that all queries are answered."""
    _write(store, _answered_key(job_id), state)


def _read(store: Store, key: str) -> BatchState | None:
    try:
        with store.open(key) as file:
            state = json.load(file)
    except FileNotFoundError:
        return None
    return BatchState(**{**state, "releases": tuple(state["releases"])})


def _write(store: Store, key: str, state: BatchState) -> None:
    with store.writing(key) as file:
        file.write(json_bytes(asdict(state)))


def clear_queries(store: Store, job: JobRecord) -> None:
    """Remove what is not needed any more once all queries are answered."""
    store.remove_tree(plan_key(job.id))
    if "upload" in job.parameters:
        store.remove_tree(job.parameters["upload"].rpartition("/")[0])
    else:
        store.remove_tree(queries_key(job))


def clear_batch(store: Store, job: JobRecord) -> None:
    """Remove all that a batch search keeps."""
    clear_queries(store, job)
    store.remove_tree(batch_folder(job.id))


def clear_ended_batch(store: Store, job: JobRecord) -> None:
    """Remove what is not needed any more of a batch search that has ended: its answers stay if it succeeded."""
    if job.status is JobStatus.SUCCEEDED:
        clear_queries(store, job)
    else:
        clear_batch(store, job)
