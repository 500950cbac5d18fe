"""A job as it stands in Redis."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from shared.schemas import Job, JobKind, JobStatus


def json_bytes(value: Any) -> bytes:
    """Return a value as the shortest JSON text."""
    return json.dumps(value, separators=(",", ":")).encode()


@dataclass(frozen=True)
class JobRecord:
    """A job as it stands in Redis: the texts that are kept there, parsed by those who ask for them."""

    id: str
    fields: Mapping[bytes, bytes]  # of its hash; shared/jobs.py names them
    delivery_texts: tuple[bytes, ...] = ()  # JSON of each try of its callback

    @cached_property
    def kind(self) -> JobKind:
        """What it does."""
        return JobKind(self.fields[b"kind"].decode())

    @cached_property
    def status(self) -> JobStatus:
        """Where it stands."""
        return JobStatus(self.fields[b"status"].decode())

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """What its task needs to know."""
        parameters: dict[str, Any] = json.loads(self.fields[b"parameters"])
        return parameters

    @cached_property
    def created_at(self) -> datetime:
        """When it was accepted."""
        return datetime.fromisoformat(self.fields[b"created_at"].decode())

    @cached_property
    def started_at(self) -> datetime | None:
        """When a worker first took it."""
        return self._moment(b"started_at")

    @cached_property
    def finished_at(self) -> datetime | None:
        """When it ended."""
        return self._moment(b"finished_at")

    @property
    def attempts(self) -> int:
        """How often a worker took it."""
        return int(self.fields.get(b"attempts", 0))

    @cached_property
    def progress(self) -> dict[str, Any] | None:
        """How far it is."""
        return self._parsed(b"progress")

    @cached_property
    def result(self) -> dict[str, Any] | None:
        """What it gave, once it has succeeded."""
        return self._parsed(b"result")

    @cached_property
    def error(self) -> dict[str, Any] | None:
        """Why it failed."""
        return self._parsed(b"error")

    @property
    def callback_url(self) -> str | None:
        """Where it is posted when it has ended."""
        url = self.fields.get(b"callback_url")
        return None if url is None else url.decode()

    @property
    def owner(self) -> str | None:
        """The id of the API key that made it; None where it was made without one."""
        owner = self.fields.get(b"owner")
        return None if owner is None else owner.decode()

    @property
    def predecessor(self) -> str | None:
        """The id of the API key that its owner replaced, if that one was good still when it was made."""
        predecessor = self.fields.get(b"predecessor")
        return None if predecessor is None else predecessor.decode()

    @property
    def traceparent(self) -> str | None:
        """The span of the request that made it (W3C Trace Context), where requests are traced."""
        parent = self.fields.get(b"traceparent")
        return None if parent is None else parent.decode()

    @property
    def log_ids(self) -> dict[str, str]:
        """What log lines about it carry."""
        ids = {"job_id": self.id}
        for name, field in (("request_id", b"request_id"), ("key_id", b"owner")):
            if field in self.fields:
                ids[name] = self.fields[field].decode()
        if self.traceparent is not None:
            ids["trace_id"] = self.traceparent.split("-")[1]
        return ids

    @cached_property
    def deliveries(self) -> list[dict[str, Any]]:
        """The tries of its callback."""
        return [json.loads(entry) for entry in self.delivery_texts]

    def _parsed(self, name: bytes) -> dict[str, Any] | None:
        value: dict[str, Any] | None = json.loads(self.fields[name]) if name in self.fields else None
        return value

    def _moment(self, name: bytes) -> datetime | None:
        return datetime.fromisoformat(self.fields[name].decode()) if name in self.fields else None

    @property
    def links(self) -> dict[str, str]:
        """Where clients ask about it."""
        own = f"/v1/jobs/{self.id}"
        part = {JobKind.IMPORT: "errors", JobKind.BATCH_SEARCH: "results"}.get(self.kind)
        return {"self": own, part: f"{own}/{part}"} if part else {"self": own}

    def to_wire(self) -> dict[str, Any]:
        """Return the job as clients see it (shared.schemas.Job), as JSON values."""
        fields = {name: getattr(self, name) for name in Job.model_fields}
        return Job.model_validate(fields).model_dump(mode="json")

    def to_json(self) -> bytes:
        """Return the job as clients see it, as JSON text.

        What was written as JSON of the wire is put together as it is: to parse, validate and write a search's answer
        again takes longer than all else that web does for it.
        """
        if self.kind is not JobKind.SEARCH:
            return json_bytes(self.to_wire())
        return b"".join(
            (
                f'{{"id":"{self.id}","kind":"{self.kind}","status":"{self.status}","created_at":'.encode(),
                self._quoted(b"created_at"),
                b',"started_at":',
                self._quoted(b"started_at"),
                b',"finished_at":',
                self._quoted(b"finished_at"),
                b',"attempts":',
                self.fields.get(b"attempts", b"0"),
                b',"progress":',
                self.fields.get(b"progress", b"null"),
                b',"result":',
                self.fields.get(b"result", b"null"),
                b',"error":',
                self.fields.get(b"error", b"null"),
                b',"deliveries":[',
                b",".join(self.delivery_texts),
                b'],"links":',
                json_bytes(self.links),
                b"}",
            )
        )

    def _quoted(self, name: bytes) -> bytes:
        return b'"%b"' % self.fields[name] if name in self.fields else b"null"
