"""Prometheus metrics: this process's requests, and the state of the whole system read from Redis at each scrape."""

import time
from collections.abc import Iterator
from typing import Any, cast

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis import Redis
from redis.exceptions import RedisError

from shared.jobs import ACTIVE_KEY, CALLBACKS_DUE_KEY, COUNTS_KEY, PAUSED_ENDPOINTS_KEY
from shared.queues import QUEUES, queue_key
from shared.worker_presence import present_workers

KNOWN_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class SystemCollector(Collector):
    """Queues, jobs and workers; left out, with `lookalike_redis_up 0`, while Redis is away."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def collect(self) -> Iterator[Metric]:
        """Read the metrics of the whole system."""
        up = GaugeMetricFamily("lookalike_redis_up", "1 if Redis answers.")
        try:
            system = self._read()
            up.add_metric([], 1)
            yield from system
        except RedisError:
            up.add_metric([], 0)
        yield up

    def _read(self) -> list[Metric]:
        waiting = GaugeMetricFamily("lookalike_queue_messages", "Messages that wait.", labels=["queue"])
        workers = GaugeMetricFamily("lookalike_workers", "Workers that are present.", labels=["queue"])
        for queue in QUEUES:
            waiting.add_metric([queue], self._redis.llen(queue_key(queue)))
            workers.add_metric([queue], present_workers(self._redis, queue))
        jobs = CounterMetricFamily("lookalike_jobs", "Jobs that ended.", labels=["kind", "status"])
        for name, count in cast("dict[bytes, bytes]", self._redis.hgetall(COUNTS_KEY)).items():
            jobs.add_metric(name.decode().split(":"), float(count))
        active = GaugeMetricFamily("lookalike_jobs_active", "Jobs that wait or run.")
        active.add_metric([], self._redis.zcard(ACTIVE_KEY))
        due = GaugeMetricFamily("lookalike_callbacks_due", "Callbacks that are not delivered yet.")
        due.add_metric([], self._redis.zcard(CALLBACKS_DUE_KEY))
        paused = GaugeMetricFamily("lookalike_callback_endpoints_paused", "Endpoints of callbacks that are paused.")
        paused.add_metric([], self._redis.zcount(PAUSED_ENDPOINTS_KEY, time.time(), "+inf"))
        return [waiting, workers, jobs, active, due, paused]


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
        route = request.url_rule.rule if request.url_rule else "unknown"
        method = request.method if request.method in KNOWN_METHODS else "other"
        count.labels(method, route, response.status_code).inc()
        if "started" in g:
            seconds.labels(method, route).observe(time.perf_counter() - g.started)
        return response
