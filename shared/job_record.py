"""A job as it stands in Redis."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.schemas import Job, JobKind, JobStatus


@dataclass(frozen=True)
class JobRecord:
    """A job as it stands in Redis."""

    id: str
    kind: JobKind
    status: JobStatus
    parameters: dict[str, Any]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    callback_url: str | None
    deliveries: list[dict[str, Any]]

    @classmethod
    def from_hash(cls, job_id: str, fields: Mapping[bytes, bytes], deliveries: list[bytes]) -> "JobRecord":
        """Read a record from its hash's fields and its deliveries' entries."""
        text = {name.decode(): value.decode() for name, value in fields.items()}

        def parsed(name: str) -> Any:
            return json.loads(text[name]) if name in text else None

        def moment(name: str) -> datetime | None:
            return datetime.fromisoformat(text[name]) if name in text else None

        return cls(
            id=job_id,
            kind=JobKind(text["kind"]),
            status=JobStatus(text["status"]),
            parameters=parsed("parameters"),
            created_at=datetime.fromisoformat(text["created_at"]),
            started_at=moment("started_at"),
            finished_at=moment("finished_at"),
            attempts=int(text.get("attempts", 0)),
            progress=parsed("progress"),
            result=parsed("result"),
            error=parsed("error"),
            callback_url=text.get("callback_url"),
            deliveries=[json.loads(entry) for entry in deliveries],
        )

    def to_wire(self) -> dict[str, Any]:
        """Return the job as clients see it (shared.schemas.Job), as JSON values."""
        links = {"self": f"/v1/jobs/{self.id}"}
        if self.kind is JobKind.IMPORT:
            links["errors"] = f"/v1/jobs/{self.id}/errors"
        fields = {name: getattr(self, name) for name in Job.model_fields if name != "links"}
        return Job.model_validate({**fields, "links": links}).model_dump(mode="json")
