"""Spans of jobs, where LOOKALIKE_TRACES_URL asks for them; else every method here does nothing."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from shared.job_record import JobRecord
from shared.settings import Settings
from shared.tracing import open_traces

if TYPE_CHECKING:
    from shared.traces import Traces

SERVICE = "lookalike-worker"


class JobTraces:
    """Traces jobs. Threads share it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _traces(self) -> "Traces | None":  # opened by the first job, after the fork of a bulk worker
        return open_traces(self._settings, SERVICE)

    def job(self, job: JobRecord) -> AbstractContextManager[None]:
        """Make the span of a turn at a job: all that is done within the block."""
        if self._traces is None:
            return nullcontext()
        attributes = {f"lookalike.{name}": value for name, value in job.log_ids.items()}
        return self._traces.job(f"job {job.kind}", job.traceparent, {**attributes, "lookalike.attempts": job.attempts})

    def add_steps(self, job: JobRecord, timings_ms: Mapping[str, float]) -> None:
        """Add the steps of the job at hand."""
        if self._traces is not None:
            waited = timedelta(milliseconds=timings_ms["queue"])
            self._traces.add_steps(job.created_at + waited, timings_ms)

    def note_failure(self, code: str) -> None:
        """Mark the job at hand as failed."""
        if self._traces is not None:
            from shared.traces import note_failure

            note_failure(code)

    def close(self) -> None:
        """Send what was not sent yet."""
        traces = vars(self).get("_traces")  # none is begun for it
        if traces is not None:
            traces.close()
