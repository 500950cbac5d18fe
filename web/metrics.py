"""Prometheus metrics of this process' requests; those of the whole system are in web/system_metrics.py."""

import time
from typing import Any

from flask import Flask, Response, g
from prometheus_client import CollectorRegistry, Counter, Histogram

from web.request_log import method_and_route


def measure_requests(app: Flask, registry: CollectorRegistry) -> None:
    """Count and time every request by its route, never by its path or an unknown method, which clients choose."""
    labels = ["method", "route", "status"]
    count = Counter("lookalike_http_requests", "Requests answered.", labels, registry=registry)
    seconds = Histogram("lookalike_http_request_seconds", "Time to answer.", ["method", "route"], registry=registry)

    @app.before_request
    def start_clock() -> None:
        g.started = time.perf_counter()

    @app.after_request
    def record(response: Response) -> Any:
        method, route = method_and_route()
        count.labels(method, route, response.status_code).inc()
        if "started" in g:
            seconds.labels(method, route).observe(time.perf_counter() - g.started)
        return response
