"""The plan of a batch search: its queries, cut in parts that can be answered, and answered again, alone."""

import json
from dataclasses import asdict, dataclass
from itertools import islice

from shared.batch_files import plan_key, queries_key
from shared.batch_queries import QueryText, read_lines
from shared.catalogue import Catalogue
from shared.errors import BatchUnreadable
from shared.job_record import JobRecord, json_bytes
from shared.store import Store

# Some tenths of a second, and most of a megabyte of answers: what a killed worker costs.
PART_QUERIES = 200
ITEMS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Plan:
    """How the queries are cut.

    Attributes:
        queries: how many there are.
        parts: offset and line number of the first query of each part.
    """

    queries: int
    parts: list[tuple[int, int]]


def plan_batch(job: JobRecord, catalogue: Catalogue, store: Store) -> Plan:
    """Return the plan of a job, which is made once: a run that begins again has the same parts.

    All items of a catalogue are those that it has now; which ones come or go later does not matter.

    Raises:
        BatchUnreadable: if the queries are gone.
    """
    try:
        with store.open(plan_key(job.id)) as file:
            planned = json.load(file)
    except FileNotFoundError:
        if "upload" not in job.parameters:
            _write_all_items(queries_key(job), catalogue, store)
        plan = _cut(queries_key(job), store)
        with store.writing(plan_key(job.id)) as file:
            file.write(json_bytes(asdict(plan)))
        return plan
    return Plan(planned["queries"], [(offset, line) for offset, line in planned["parts"]])


def _write_all_items(key: str, catalogue: Catalogue, store: Store) -> None:
    with store.writing(key) as file:
        after: str | None = None
        while item_ids := catalogue.item_ids(ITEMS_AT_ONCE, after):
            file.writelines(json_bytes({"item_id": item_id}) + b"\n" for item_id in item_ids)
            after = item_ids[-1]


def _cut(key: str, store: Store) -> Plan:
    queries = 0
    parts: list[tuple[int, int]] = []
    try:
        with store.open(key) as file:
            for query in read_lines(file):
                if queries % PART_QUERIES == 0:
                    parts.append((query.offset, query.line))
                queries += 1
    except FileNotFoundError:
        raise BatchUnreadable("The queries are not in the store any more. Send them again.") from None
    return Plan(queries, parts)


def read_part(job: JobRecord, plan: Plan, number: int, store: Store) -> list[QueryText]:
    """Return the queries of a part."""
    offset, line = plan.parts[number]
    with store.open(queries_key(job)) as file:
        file.seek(offset)
        return list(islice(read_lines(file, line), PART_QUERIES))
