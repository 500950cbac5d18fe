"""Spans for OpenTelemetry: a request, the job that it makes, the steps of that job, all of one trace.

Importing this needs requirements-traces.txt; who may have none asks shared/tracing.py.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, get_current_span, set_span_in_context, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

EXPORT_SECONDS = 5
EXPORT_EVERY_MILLISECONDS = 1000
NO_STEPS = ("queue", "total")  # they begin before the job is in hand

_W3C = TraceContextTextMapPropagator()

Attributes = Mapping[str, str | int]


class Traces:
    """Makes spans and sends them to a collector, in the background. Threads share it; a forked child makes its own."""

    def __init__(self, url: str, service: str) -> None:
        """Args:
        url: where the collector takes OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces.
        service: which tier this is, as the collector shows it.
        """
        self._provider = TracerProvider(resource=Resource.create({"service.name": service}))
        exporter = OTLPSpanExporter(endpoint=url, timeout=EXPORT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=EXPORT_EVERY_MILLISECONDS))
        self._tracer = self._provider.get_tracer("lookalike")

    def start_request(self, name: str, traceparent: str | None, attributes: Attributes) -> Span:
        """Begin the span of a request, below that of its client where it names one; the caller ends it."""
        return self._start(name, SpanKind.SERVER, traceparent, attributes)

    @contextmanager
    def job(self, name: str, traceparent: str | None, attributes: Attributes) -> Iterator[None]:
        """Make the span of what a worker does for a job, below that of the request that made the job."""
        span = self._start(name, SpanKind.CONSUMER, traceparent, attributes)
        # What goes wrong is named by its kind alone: texts of errors may hold what no log line may hold.
        with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield
            except Exception as error:
                note_failure(type(error).__name__, span)
                raise

    def _start(self, name: str, kind: SpanKind, traceparent: str | None, attributes: Attributes) -> Span:
        parent = _W3C.extract({} if traceparent is None else {"traceparent": traceparent}, Context())
        return self._tracer.start_span(name, parent, kind, attributes)

    def add_steps(self, began_at: datetime, timings_ms: Mapping[str, float]) -> None:
        """Add the steps of the job at hand, which were done one after the other.

        Args:
            began_at: when the first one began.
            timings_ms: by name, in their order.
        """
        job = set_span_in_context(get_current_span())
        at = int(began_at.timestamp() * 1e9)
        for step, milliseconds in timings_ms.items():
            if step not in NO_STEPS:
                end = at + int(milliseconds * 1e6)
                self._tracer.start_span(step, job, start_time=at).end(end)
                at = end

    def close(self) -> None:
        """Send what was not sent yet, for some seconds at most."""
        self._provider.shutdown()


def note_failure(reason: str, span: Span | None = None) -> None:
    """Mark a span, or that of the job at hand, as failed."""
    (span or get_current_span()).set_status(StatusCode.ERROR, reason)


def traceparent_of(span: Span) -> str:
    """Return what names a span to another process (W3C Trace Context)."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, set_span_in_context(span))
    return carrier["traceparent"]
