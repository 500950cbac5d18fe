"""The web tier's composition: the one place where its parts are created and joined."""

import logging
from threading import BoundedSemaphore

from flask import Response, jsonify, redirect, render_template, request
from flask_openapi import Info, OpenAPI
from prometheus_client import CollectorRegistry, ProcessCollector
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response as BaseResponse

from shared.accepted_imports import AcceptedImports
from shared.catalogue import Catalogue
from shared.database import connect_database
from shared.jobs import Jobs
from shared.logs import configure_logging
from shared.queues import create_celery
from shared.redis_client import connect_redis, connect_redis_for_listening
from shared.result_cache import ResultCache
from shared.schemas import (
    BatchAnswer,
    BatchRequest,
    ImportRequest,
    ItemWrite,
    Problem,
    ReleaseRequest,
    SearchLine,
    SearchRequest,
)
from shared.settings import Settings, load_settings
from shared.store import Store
from shared.task_message import TaskMessages
from shared.tracing import open_traces
from web.access import check_that_keys_exist, guard, identify, needs_keys
from web.api_keys import ApiKeys
from web.batches import create_batches_api
from web.bounds import JobBounds
from web.cross_origin import allow_origins
from web.documentation import component_schemas
from web.errors import register_error_handlers, validation_response
from web.form_parser import FormRequest
from web.forms import FORM_OVERHEAD_BYTES, JSON_MAX_BYTES
from web.idempotency_keys import IdempotencyKeys
from web.imports import create_imports_api
from web.items import create_items_api
from web.job_ends import JobEnds
from web.jobs import create_jobs_api
from web.keys_api import KeyRequest, RotateRequest, create_keys_api
from web.local_only import keep_to_this_machine
from web.metrics import measure_requests
from web.operations import create_operations_api
from web.rate_limits import RateLimits, limit_rates
from web.readiness import ReadinessCheck
from web.releases import create_releases_api
from web.request_log import log_requests
from web.searches import create_searches_api
from web.security_headers import add_security_headers
from web.services import Services
from web.system_metrics import SystemCollector

# A command takes a fraction of a millisecond, so that a few connections carry those of hundreds of threads.
REDIS_CONNECTIONS = 8
REMEMBERED_RESULTS = 2000
API_VERSION = "1.0.0"
DESCRIPTION = "Find the products that look most alike. Send a photo, poll the job or take a webhook."
DOCUMENTATION_PAGE = '{% include "documentation.html" %}'


def create_services(settings: Settings) -> Services:
    """Open the connections that the endpoints use; nothing is sent yet."""
    redis = connect_redis(settings, REDIS_CONNECTIONS)
    jobs = Jobs(redis, settings)
    engine = connect_database(settings.database_url)
    return Services(
        settings=settings,
        redis=redis,
        engine=engine,
        jobs=jobs,
        accepted_imports=AcceptedImports(engine, redis, settings),
        bounds=JobBounds(redis, settings),
        catalogue=Catalogue(engine),
        store=Store(settings.store_url),
        results=ResultCache(redis, settings.cache_ttl_seconds, REMEMBERED_RESULTS),
        messages=TaskMessages(create_celery(settings, "web")),
        job_ends=JobEnds(connect_redis_for_listening(settings), jobs),
        idempotency_keys=IdempotencyKeys(redis),
        api_keys=ApiKeys(engine),
        waiting_places=BoundedSemaphore(settings.web_threads * 3 // 4),
    )


def create_app(settings: Settings | None = None) -> OpenAPI:
    """Create the web application.

    Args:
        settings: unset, they are read from the environment.
    """
    settings = settings or load_settings()
    configure_logging(settings)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # /readyz asks it at every call
    services = create_services(settings)
    app = OpenAPI(
        __name__,
        info=Info(title="Lookalike", version=API_VERSION, description=DESCRIPTION),
        validation_error_model=Problem,
        validation_error_callback=validation_response,
        doc_prefix="/docs",
        security_schemes={"key": {"type": "http", "scheme": "bearer"}},
    )
    app.request_class = FormRequest
    app.openapi_version = "3.1.0"
    # The pages that come with the packages have scripts inside of them, which our policy forbids.
    app.config["SWAGGER_HTML_STRING"] = app.config["OPENAPI_HTML_STRING"] = DOCUMENTATION_PAGE
    app.config["MAX_CONTENT_LENGTH"] = JSON_MAX_BYTES  # endpoints that take a form raise it themselves
    app.config["MAX_FORM_MEMORY_SIZE"] = FORM_OVERHEAD_BYTES
    app.json.sort_keys = False  # type: ignore[attr-defined]
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies, x_proto=0)  # type: ignore[method-assign]
    log_requests(app)
    traces = open_traces(settings, "lookalike-web")
    if traces is not None:
        from web.request_traces import trace_requests

        trace_requests(app, traces)
    register_error_handlers(app)
    add_security_headers(app)
    allow_origins(app, settings.origins)
    keep_to_this_machine(app, settings)
    if needs_keys(settings):
        check_that_keys_exist(services.api_keys, settings)
    identify(app, services.api_keys, settings)
    limit_rates(app, RateLimits(services.redis, settings), settings)
    guard(app, settings)
    registry = CollectorRegistry()
    readiness = ReadinessCheck(services.redis, services.engine)
    registry.register(SystemCollector(services.redis, readiness))
    ProcessCollector(namespace="lookalike_web", registry=registry)
    measure_requests(app, registry)
    for api in (
        create_searches_api(services),
        create_batches_api(services),
        create_jobs_api(services),
        create_imports_api(services),
        create_items_api(services),
        create_releases_api(services),
        create_keys_api(services),
        create_operations_api(readiness, registry),
    ):
        app.register_api(api)
    # Bodies that may also come as a form, or line by line, are not in any signature.
    in_no_signature = (
        SearchRequest,
        SearchLine,
        BatchRequest,
        BatchAnswer,
        ImportRequest,
        ItemWrite,
        ReleaseRequest,
        KeyRequest,
        RotateRequest,
    )
    app.components_schemas.update(component_schemas(*in_no_signature, Problem))
    _add_pages(app)
    return app


def _add_pages(app: OpenAPI) -> None:
    @app.route("/")
    def page() -> Response:
        return Response(render_template("index.html"))

    @app.route("/docs")
    def documentation() -> BaseResponse:
        return redirect("/docs/swagger")

    @app.route("/openapi.json")
    def openapi() -> Response:
        return jsonify(app.api_doc)

    @app.after_request
    def let_files_be_asked_for_anew(response: Response) -> Response:
        if request.path.startswith("/static/"):
            response.headers["Cache-Control"] = "no-cache"
        return response
