"""What operators and their machines ask: alive, ready, metrics."""

from flask import Response, jsonify
from flask_openapi import APIBlueprint, Tag
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from shared.errors import Unavailable
from shared.migrations import applied_revision, current_head
from shared.queues import BULK, SEARCH
from shared.schemas import Readiness
from shared.worker_presence import present_workers
from web.documentation import PROBLEM_RESPONSES
from web.errors import RETRY_AFTER_SECONDS, status_of
from web.services import Services

NOT_READY = status_of(Unavailable)


def create_operations_api(services: Services, registry: CollectorRegistry) -> APIBlueprint:
    """Create the endpoints for health checks and Prometheus."""
    tag = Tag(name="operations", description="Health and metrics")
    api = APIBlueprint("operations", __name__, abp_tags=[tag], abp_responses=PROBLEM_RESPONSES)
    head = current_head()

    @api.get("/healthz", summary="Is the process alive?", responses={200: {"description": "Yes."}})
    def healthz() -> Response:
        """Touches nothing else: a sick Redis is no reason to restart this process."""
        return jsonify(status="ok")

    @api.get("/readyz", summary="Can it take work?", responses={200: Readiness, NOT_READY: Readiness})
    def readyz() -> tuple[Response, int, dict[str, str]]:
        """200 when Redis and the database can be used, else 503; `checks` says what is wrong."""
        checks: dict[str, str] = {}
        search_workers = bulk_workers = 0
        try:
            services.redis.ping()
            search_workers = present_workers(services.redis, SEARCH)
            bulk_workers = present_workers(services.redis, BULK)
            checks["redis"] = "ok"
        except RedisError as error:
            checks["redis"] = f"Redis at REDIS_URL does not answer ({type(error).__name__}). Start it or check the URL."
        try:
            revision = applied_revision(services.engine)
            is_current = revision == head
            checks["database"] = (
                "ok" if is_current else f"at revision {revision}, needs {head}: run `python -m shared.migrations`"
            )
        except SQLAlchemyError as error:
            checks["database"] = f"the database at DATABASE_URL does not answer ({type(error).__name__})"
        is_ready = set(checks.values()) == {"ok"}
        body = Readiness(ready=is_ready, checks=checks, search_workers=search_workers, bulk_workers=bulk_workers)
        headers = {} if is_ready else {"Retry-After": str(RETRY_AFTER_SECONDS)}
        return jsonify(body.model_dump(mode="json")), 200 if is_ready else NOT_READY, headers

    @api.get("/metrics", summary="Prometheus metrics", responses={200: {"description": "Text format."}})
    def metrics() -> Response:
        """Requests of this process; queues, jobs and workers of the whole system."""
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    return api
