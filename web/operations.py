"""What operators and their machines ask: alive, ready, metrics."""

from flask import Response, jsonify
from flask_openapi import APIBlueprint, Tag
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from shared.errors import Unavailable
from shared.schemas import Readiness
from web.documentation import PROBLEM_RESPONSES
from web.errors import RETRY_AFTER_SECONDS, status_of
from web.readiness import ReadinessCheck

NOT_READY = status_of(Unavailable)


def create_operations_api(readiness: ReadinessCheck, registry: CollectorRegistry) -> APIBlueprint:
    """Create the endpoints for health checks and Prometheus."""
    tag = Tag(name="operations", description="Health and metrics")
    api = APIBlueprint("operations", __name__, abp_tags=[tag], abp_responses=PROBLEM_RESPONSES)

    @api.get("/healthz", summary="Is the process alive?", responses={200: {"description": "Yes."}})
    def healthz() -> Response:
        """Touches nothing else: a sick Redis is no reason to restart this process."""
        return jsonify(status="ok")

    @api.get("/readyz", summary="Can it take work?", responses={200: Readiness, NOT_READY: Readiness})
    def readyz() -> tuple[Response, int, dict[str, str]]:
        """200 when Redis and the database can be used, else 503; `checks` says what is wrong, and `warnings` which
        queues nobody serves.
        """
        body = readiness.read()
        headers = {} if body.ready else {"Retry-After": str(RETRY_AFTER_SECONDS)}
        return jsonify(body.model_dump(mode="json")), 200 if body.ready else NOT_READY, headers

    @api.get("/metrics", summary="Prometheus metrics", responses={200: {"description": "Text format."}})
    def metrics() -> Response:
        """Requests of this process; queues, jobs and workers of the whole system."""
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    return api
