"""Traces for OpenTelemetry, exported when `OTEL_EXPORTER_OTLP_ENDPOINT` says where to.

Its own instrumentations tell of requests (`servicekit.http.traces`), and of what is asked of
PostgreSQL, Redis and the other service. Batches of messages, of which they know nothing, are told
of here. The packages are an extra: requirements/telemetry.txt.
"""

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from servicekit.correlation import Correlation

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class TelemetryNotInstalled(Exception):
    """Traces are to be exported, and the packages for it are not there."""

    def __init__(self, missing: str) -> None:
        super().__init__(
            f"{ENDPOINT} is set, but {missing} is not installed: "
            "pip install --require-hashes -r requirements/telemetry.txt, or leave it empty."
        )


_tracer: Any = None
"""None where nobody wants to know."""


def start() -> bool:
    """Have the traces of this process exported; return whether anybody wants to know.

    :raises TelemetryNotInstalled: if somebody does, and the packages are missing
    """
    if not os.environ.get(ENDPOINT):
        return False
    try:
        _start()
    except ImportError as error:
        raise TelemetryNotInstalled(error.name or str(error)) from error
    return True


def _start() -> None:
    from opentelemetry import trace  # noqa: PLC0415 - an extra
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor  # noqa: PLC0415
    from opentelemetry.instrumentation.redis import RedisInstrumentor  # noqa: PLC0415
    from opentelemetry.instrumentation.requests import RequestsInstrumentor  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    class OfWork(BatchSpanProcessor):  # type: ignore[misc]  # an extra
        """Exports requests and batches, and what is asked for them."""

        def on_end(self, span: Any) -> None:
            # What a loop asks a server every second would be a trace of its own each time.
            if span.parent is not None or span.kind is not trace.SpanKind.CLIENT:
                super().on_end(span)

    traces = provider()
    traces.add_span_processor(OfWork(OTLPSpanExporter()))
    trace.set_tracer_provider(traces)
    for instrumentor in (PsycopgInstrumentor(), RedisInstrumentor(), RequestsInstrumentor()):
        instrumentor.instrument()
    global _tracer  # noqa: PLW0603 - once per process
    _tracer = traces.get_tracer(__name__)


def provider() -> Any:
    """Return what makes spans: without a limit of links, since a batch has one for each request."""
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider  # noqa: PLC0415 - an extra

    return TracerProvider(span_limits=SpanLimits(max_links=SpanLimits.UNSET))


def batch_span(queue: str, sources: Iterable[Correlation | None]) -> AbstractContextManager[Any]:
    """Return what a batch of messages is handled in: a span, where somebody wants to know.

    A batch of one request is a part of its trace, a batch of several has one of its own that is
    linked to each. Requests that their callers have decided not to record are left out.
    """
    if _tracer is None:
        return nullcontext()
    from opentelemetry import propagate, trace  # noqa: PLC0415 - an extra

    messages = list(sources)
    contexts = [
        propagate.extract({"traceparent": traceparent})
        for traceparent in {each.traceparent for each in messages if each and each.traceparent}
    ]
    places = [trace.get_current_span(context).get_span_context() for context in contexts]
    recorded = [place for place in places if place.trace_flags.sampled] or places[:1]
    return _tracer.start_as_current_span(  # type: ignore[no-any-return]  # an extra
        f"process {queue}",
        context=contexts[places.index(recorded[0])] if len(recorded) == 1 else None,
        kind=trace.SpanKind.CONSUMER,
        links=[trace.Link(place) for place in recorded],
        attributes={
            "messaging.system": "rabbitmq",
            "messaging.operation.type": "process",
            "messaging.destination.name": queue,
            "messaging.batch.message_count": len(messages),
        },
    )
