"""A span for each request, named to the job that it makes. Imported where LOOKALIKE_TRACES_URL is set."""

from flask import Flask, Response, g, request

from shared.errors import Internal
from shared.logs import add_log_ids
from shared.traces import Traces, note_failure, traceparent_of
from web.errors import status_of
from web.request_log import ASKED_BY_MACHINES, method_and_route

SERVER_FAILED = status_of(Internal)


def trace_requests(app: Flask, traces: Traces) -> None:
    """Trace all requests but those that machines make every few seconds. To be called after `log_requests`."""

    @app.before_request
    def begin() -> None:
        method, route = method_and_route()
        if route in ASKED_BY_MACHINES:
            return
        attributes = {"http.request.method": method, "http.route": route, "lookalike.request_id": g.request_id}
        g.span = traces.start_request(f"{method} {route}", request.headers.get("traceparent"), attributes)
        g.traceparent = traceparent_of(g.span)
        add_log_ids(trace_id=g.traceparent.split("-")[1])

    @app.after_request
    def note_status(response: Response) -> Response:
        if "span" in g:
            g.span.set_attribute("http.response.status_code", response.status_code)
            if response.status_code >= SERVER_FAILED:
                note_failure(response.status, g.span)
        return response

    @app.teardown_request
    def end(_error: BaseException | None) -> None:
        if "span" in g:
            g.pop("span").end()
