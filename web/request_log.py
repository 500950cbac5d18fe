"""The id of each request, which joins all that is logged about it in any process, and its line in the log."""

import logging
import re
import time
import uuid

from flask import Flask, Response, g, request

from shared.logs import add_log_ids, clear_log_ids

log = logging.getLogger(__name__)

HEADER = "X-Request-Id"
KNOWN_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# What machines ask every few seconds is told at level DEBUG.
ASKED_BY_MACHINES = {"/healthz", "/readyz", "/metrics"}

_ID = re.compile(r"[A-Za-z0-9._:=+/-]{1,128}")
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def log_requests(app: Flask) -> None:
    """Name each request, by its `X-Request-Id` where that can be one, and log a line when it is answered.

    To be called before anything else looks at requests: what refuses one is then logged under its id.
    """

    @app.before_request
    def begin() -> None:
        g.received = time.perf_counter()
        sent = request.headers.get(HEADER, "")
        g.request_id = sent if _ID.fullmatch(sent) else uuid.uuid4().hex
        clear_log_ids()
        add_log_ids(request_id=g.request_id)
        job_id = (request.view_args or {}).get("job_id")
        if job_id is not None and _JOB_ID.fullmatch(job_id):
            add_log_ids(job_id=job_id)

    @app.after_request
    def end(response: Response) -> Response:
        response.headers[HEADER] = g.request_id
        method, route = method_and_route()
        milliseconds = round((time.perf_counter() - g.received) * 1000, 1)
        members = {"method": method, "route": route, "status": response.status_code, "duration_ms": milliseconds}
        level = logging.DEBUG if route in ASKED_BY_MACHINES else logging.INFO
        log.log(level, "%s %s %d in %s ms", *members.values(), extra=members)
        return response

    @app.teardown_request
    def forget(_error: BaseException | None) -> None:
        clear_log_ids()


def method_and_route() -> tuple[str, str]:
    """Return what the present request is counted and logged under: never a path or a method that clients choose."""
    method = request.method if request.method in KNOWN_METHODS else "other"
    return method, request.url_rule.rule if request.url_rule else "unknown"


def origin() -> dict[str, str]:
    """Return what a job that the present request makes keeps of it; see `Jobs.create`."""
    names = ("request_id", "traceparent", "predecessor")
    return {name: g.get(name) for name in names if name in g}
