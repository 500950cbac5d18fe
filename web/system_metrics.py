"""Prometheus metrics of the whole system, read from Redis at each scrape: workers answer no HTTP."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from redis import Redis
from redis.exceptions import RedisError

from shared.jobs import (
    ACTIVE_KEY,
    CALLBACKS_DUE_KEY,
    COUNTS_KEY,
    DELIVERIES_KEY,
    LOOKED_AFTER_KEY,
    PAUSED_ENDPOINTS_KEY,
    RECOVERED_KEY,
)
from shared.queues import QUEUES, queue_key
from shared.schemas import JobKind, JobStatus
from shared.step_times import STEPS_KEY, histograms
from shared.task_message import sent_at
from shared.worker_presence import present_names, worker_states
from web.readiness import ReadinessCheck

Counts = Mapping[bytes, bytes]


class SystemCollector(Collector):
    """Queues, jobs, searches and workers; left out, with `lookalike_redis_up 0`, while Redis is away."""

    def __init__(self, redis: Redis, readiness: ReadinessCheck) -> None:
        self._redis = redis
        self._readiness = readiness

    def collect(self) -> Iterator[Metric]:
        """Read the metrics of the whole system."""
        yield GaugeMetricFamily("lookalike_ready", "1 if /readyz says so.", value=self._readiness.read().ready)
        up = GaugeMetricFamily("lookalike_redis_up", "1 if Redis answers.")
        try:
            system = list(self._read())
            up.add_metric([], 1)
            yield from system
        except RedisError:
            up.add_metric([], 0)
        yield up

    def _read(self) -> Iterator[Metric]:
        with self._redis.pipeline(transaction=False) as pipe:
            for queue in QUEUES:
                pipe.llen(queue_key(queue))
                pipe.lindex(queue_key(queue), -1)  # messages come in on the left and go out on the right
                present_names(pipe, queue)
            for key in (COUNTS_KEY, RECOVERED_KEY, DELIVERIES_KEY, STEPS_KEY):
                pipe.hgetall(key)
            pipe.zcard(ACTIVE_KEY)
            pipe.zcard(CALLBACKS_DUE_KEY)
            pipe.get(LOOKED_AFTER_KEY)
            pipe.zcount(PAUSED_ENDPOINTS_KEY, time.time(), "+inf")
            found = pipe.execute()
        *of_queues, counts, recovered, deliveries, steps, active, due, looked_after, paused = found
        names = of_queues[2::3]
        yield from _queues(of_queues[0::3], of_queues[1::3], names)
        yield from self._workers(sorted(set[bytes]().union(*names)))
        yield from _jobs(counts)
        yield _counter("lookalike_jobs_recovered", "Jobs that stood still and were sent again.", "kind", recovered)
        yield GaugeMetricFamily("lookalike_jobs_active", "Jobs that wait or run.", value=active)
        since = float("inf") if looked_after is None else max(0.0, time.time() - float(looked_after))
        yield GaugeMetricFamily("lookalike_recovery_age_seconds", "Time since recovery last ran.", value=since)
        yield _searches(steps)
        yield GaugeMetricFamily("lookalike_callbacks_due", "Callbacks that are not delivered yet.", value=due)
        yield GaugeMetricFamily(
            "lookalike_callback_endpoints_paused", "Endpoints of callbacks that are paused.", value=paused
        )
        yield _counter("lookalike_deliveries", "Tries of callbacks.", "outcome", deliveries)

    def _workers(self, names: Sequence[bytes]) -> Iterator[Metric]:
        memory = GaugeMetricFamily(
            "lookalike_worker_memory_bytes", "Resident memory of a worker.", labels=["worker", "queues"]
        )
        tasks = GaugeMetricFamily(
            "lookalike_worker_tasks", "Tasks that a worker has at hand.", labels=["queue", "worker"]
        )
        for state in worker_states(self._redis, names):
            memory.add_metric([state.name, ",".join(state.queues)], state.memory_bytes)
            for queue in state.queues:
                tasks.add_metric([queue, state.name], state.tasks)
        yield from (memory, tasks)


def _queues(lengths: Sequence[int], oldest: Sequence[bytes | None], names: Sequence[Any]) -> Iterator[Metric]:
    waiting = GaugeMetricFamily("lookalike_queue_messages", "Messages that wait.", labels=["queue"])
    age = GaugeMetricFamily(
        "lookalike_queue_oldest_message_seconds", "Age of the oldest message; 0 if none waits.", labels=["queue"]
    )
    workers = GaugeMetricFamily("lookalike_workers", "Workers that are present.", labels=["queue"])
    for queue, length, message, present in zip(QUEUES, lengths, oldest, names, strict=True):
        sent = None if message is None else sent_at(message)
        waiting.add_metric([queue], length)
        age.add_metric([queue], 0 if sent is None else max(0.0, time.time() - sent))
        workers.add_metric([queue], len(present))
    yield from (waiting, age, workers)


def _jobs(counts: Counts) -> Iterator[Metric]:
    ended, answers = Counter[tuple[str, str, str]](), Counter[str]()
    for name, count in counts.items():
        kind, status, *details = name.decode().split(":")
        detail = details[0] if details else ""  # earlier versions counted without
        ended[kind, status, detail if status == JobStatus.FAILED else ""] += int(count)
        if (kind, status) == (JobKind.SEARCH, JobStatus.SUCCEEDED) and detail:
            answers[detail] += int(count)
    jobs = CounterMetricFamily(
        "lookalike_jobs", "Jobs that ended; code is that of the error.", labels=["kind", "status", "code"]
    )
    for labels, number in sorted(ended.items()):
        jobs.add_metric(labels, number)
    searches = CounterMetricFamily(
        "lookalike_search_answers", "Answers of searches by where they came from.", labels=["answered_from"]
    )
    for source, number in sorted(answers.items()):
        searches.add_metric([source], number)
    yield from (jobs, searches)


def _searches(steps: Counts) -> Metric:
    metric = HistogramMetricFamily("lookalike_search_step_seconds", "Time of a search's step.", labels=["step"])
    for step, buckets, seconds in histograms(steps):
        metric.add_metric([step], [(floatToGoString(bound), count) for bound, count in buckets], seconds)
    return metric


def _counter(name: str, documentation: str, label: str, counts: Counts) -> Metric:
    metric = CounterMetricFamily(name, documentation, labels=[label])
    for value, count in sorted(counts.items()):
        metric.add_metric([value.decode()], float(count))
    return metric
