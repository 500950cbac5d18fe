"""Job records as texts: what web puts together is what the models of the wire would write."""

import json
from typing import Any

import pytest

from shared.errors import BrokenImage
from shared.job_record import JobRecord, json_bytes
from shared.schemas import Job, JobKind, JobStatus

HIT = {
    "rank": 1,
    "item_id": "a:1",
    "score": 0.5,
    "title": 'Röck "A"\u2028',
    "attributes": {"price": 12.0, "size": 38, "new": True, "colour": "rot"},
    "image_url": "/v1/items/a:1/image?position=0&v=0123456789ab",
}
RESULT: dict[str, Any] = {
    "hits": [HIT, {**HIT, "rank": 2}],
    "release": "encoder.flat",
    "catalogue_version": 7,
    "answered_from": "engine",
    "reason": None,
    "timings_ms": {"queue": 1.25, "total": 9.0},
}
IMPORT_RESULT = {"rows": 1, "imported": 1, "failed": 0, "deleted": 0, "embedded": 1}
CREATED: dict[str, Any] = {"status": "queued", "parameters": {"k": 5}, "created_at": "2026-11-23T17:29:21.123456Z"}
RUNNING = {**CREATED, "status": "running", "started_at": "2026-11-23T17:29:22Z", "attempts": 2}
PROGRESS = {"done": 1, "failed": 0, "total": None, "rate_per_second": None, "eta_seconds": 2.5}
FINISHED = {**RUNNING, "finished_at": "2026-11-23T17:29:22.500000Z"}
DELIVERY = {
    "attempt": 1,
    "at": "2026-11-23T17:29:23.000001Z",
    "paused": False,
    "status": None,
    "error": "No answer.",
    "next_attempt_at": "2026-11-23T17:29:28Z",
}

STATES: dict[str, dict[str, Any]] = {
    "queued": CREATED,
    "running": RUNNING,
    "succeeded": {**FINISHED, "status": "succeeded", "result": RESULT},
    "without hits": {**FINISHED, "status": "succeeded", "result": {**RESULT, "hits": [], "reason": "catalogue_empty"}},
    "failed": {**FINISHED, "status": "failed", "error": BrokenImage("Truncated.", missing_bytes=5).to_wire()},
    "cancelled": {**CREATED, "status": "cancelled", "finished_at": "2026-11-23T17:29:22.500000Z"},
}


def record(kind: JobKind, fields: dict[str, Any], *deliveries: dict[str, Any]) -> JobRecord:
    """Return a record as Redis would give it: texts as they are, all else as JSON."""
    texts = {"kind": kind.value, **fields}
    stored = {
        name.encode(): value.encode() if isinstance(value, str) else json_bytes(value) for name, value in texts.items()
    }
    return JobRecord("0123456789abcdef", stored, tuple(json_bytes(delivery) for delivery in deliveries))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", JobKind)
def test_the_text_of_a_job_is_that_of_its_model_to_the_byte(kind: JobKind, state: str) -> None:
    fields = STATES[state]
    if kind is JobKind.IMPORT:
        fields = {**fields, "progress": PROGRESS}
        if "result" in fields:
            fields["result"] = IMPORT_RESULT
    for deliveries in ([], [DELIVERY], [DELIVERY, {**DELIVERY, "attempt": 2, "status": 204, "error": None}]):
        job = record(kind, fields, *deliveries)
        text = job.to_json()
        assert text == json_bytes(job.to_wire())
        assert text == json_bytes(Job.model_validate_json(text).model_dump(mode="json"))
        wire = json.loads(text)
        assert (wire["id"], wire["status"], wire["kind"]) == (job.id, fields["status"], kind.value)
        assert len(wire["deliveries"]) == len(deliveries)
        assert ("errors" in wire["links"]) == (kind is JobKind.IMPORT)


def test_what_was_never_written_reads_as_nothing() -> None:
    job = record(JobKind.SEARCH, CREATED)
    assert (job.kind, job.status, job.parameters) == (JobKind.SEARCH, JobStatus.QUEUED, {"k": 5})
    nothing = [job.started_at, job.finished_at, job.progress, job.result, job.error, job.callback_url]
    assert nothing == [None] * 6
    assert (job.attempts, job.deliveries) == (0, [])
