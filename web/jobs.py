"""Watching and cancelling jobs."""

from collections.abc import Iterator

from flask import Response, jsonify
from flask_openapi import APIBlueprint, Tag
from pydantic import Field

from shared.batch_files import part_key, read_answered
from shared.errors import ResultsNotFound
from shared.schemas import BatchAnswer, Job, JobKind, JobStatus, RowError, RowErrorPage, Wire
from web.access import check_visible
from web.documentation import PROBLEM_RESPONSES, ndjson
from web.pieces import SENT_BYTES
from web.services import Services
from web.waiting import json_response, wait_for_end


class JobPath(Wire):
    """Which job."""

    job_id: str = Field(max_length=64, pattern=r"^[A-Za-z0-9_-]+$", description="The job's id.")


class WaitQuery(Wire):
    """How long to wait for the job's end."""

    wait: int = Field(0, ge=0, description="Answer when the job has ended, or after this many seconds.")


class ErrorsQuery(Wire):
    """Which errors."""

    limit: int = Field(100, ge=1, le=1000)
    cursor: str | None = Field(None, pattern=r"^[0-9]{1,18}$", description="next_cursor of the page before.")


def create_jobs_api(services: Services) -> APIBlueprint:
    """Create the endpoints that show and cancel jobs."""
    tag = Tag(name="jobs", description="Watch and cancel work")
    api = APIBlueprint("jobs", __name__, abp_tags=[tag], abp_responses=PROBLEM_RESPONSES)

    @api.get("/v1/jobs/<job_id>", summary="Read a job", responses={200: Job})
    def read_job(path: JobPath, query: WaitQuery) -> Response:
        """Status, progress, result or error. With `?wait=N` the answer comes as soon as the job has ended; at once
        where too many clients wait already.
        """
        record = wait_for_end(services, path.job_id, query.wait)
        response = json_response(record.to_json())
        if not record.status.is_final:
            response.headers["Retry-After"] = str(services.settings.retry_after_seconds)
        response.headers["Cache-Control"] = "no-store"
        return response

    @api.delete("/v1/jobs/<job_id>", summary="Cancel a job", responses={200: Job})
    def cancel_job(path: JobPath) -> Response:
        """A waiting job never starts, a running import stops after the rows at hand; what was imported stays."""
        check_visible(services.job(path.job_id))
        cancelled = services.jobs.cancel(path.job_id)
        if cancelled.kind is JobKind.IMPORT:
            services.accepted_imports.end(cancelled.id)
        return json_response(cancelled.to_json())

    @api.get("/v1/jobs/<job_id>/errors", summary="Rows that an import left out", responses={200: RowErrorPage})
    def read_errors(path: JobPath, query: ErrorsQuery) -> Response:
        """By line of the file, with the reason and the remedy."""
        check_visible(services.job(path.job_id))
        rows = services.catalogue.row_errors(path.job_id, query.limit, int(query.cursor or 0))
        page = RowErrorPage(
            errors=[RowError(line=row.line, item_id=row.item_id, code=row.code, detail=row.detail) for row in rows],
            next_cursor=str(rows[-1].line) if len(rows) == query.limit else None,
        )
        return jsonify(page.model_dump(mode="json"))

    @api.get(
        "/v1/jobs/<job_id>/results",
        summary="Answers of a batch search",
        responses={200: ndjson(BatchAnswer)},
    )
    def read_results(path: JobPath) -> Response:
        """One JSON object a line, in the order of the queries, once the job has succeeded."""
        job = services.jobs.get(path.job_id)
        check_visible(job)
        if job.kind is not JobKind.BATCH_SEARCH:
            raise ResultsNotFound(f"Job {job.id} is a {job.kind}; only batch searches have results to read.")
        if job.status is not JobStatus.SUCCEEDED:
            raise ResultsNotFound(f"Job {job.id} is {job.status}; its results can be read once it has succeeded.")
        state = read_answered(services.store, job.id)
        if state is None:
            raise ResultsNotFound(f"The results of job {job.id} are not in the store any more. Search again.")
        return Response(_parts(services, job.id, state.parts), mimetype="application/x-ndjson")

    return api


def _parts(services: Services, job_id: str, parts: int) -> Iterator[bytes]:
    """Yield what the parts of a batch search hold; a client sees a broken answer if one of them is gone."""
    for number in range(parts):
        with services.store.open(part_key(job_id, number)) as file:
            while content := file.read(SENT_BYTES):
                yield content
