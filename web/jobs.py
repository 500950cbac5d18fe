"""Watching and cancelling jobs."""

from flask import Response, jsonify
from flask_openapi import APIBlueprint, Tag
from pydantic import Field

from shared.schemas import Job, RowError, RowErrorPage, Wire
from web.access import check_visible
from web.documentation import PROBLEM_RESPONSES
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
        check_visible(services.jobs.get(path.job_id))
        return json_response(services.jobs.cancel(path.job_id).to_json())

    @api.get("/v1/jobs/<job_id>/errors", summary="Rows that an import left out", responses={200: RowErrorPage})
    def read_errors(path: JobPath, query: ErrorsQuery) -> Response:
        """By line of the file, with the reason and the remedy."""
        check_visible(services.jobs.get(path.job_id))
        rows = services.catalogue.row_errors(path.job_id, query.limit, int(query.cursor or 0))
        page = RowErrorPage(
            errors=[RowError(line=row.line, item_id=row.item_id, code=row.code, detail=row.detail) for row in rows],
            next_cursor=str(rows[-1].line) if len(rows) == query.limit else None,
        )
        return jsonify(page.model_dump(mode="json"))

    return api
