"""Traces for OpenTelemetry, exported when `OTEL_EXPORTER_OTLP_ENDPOINT` says where to.

The ids travel anyway (`servicekit.tracing`); this only tells a collector what was done under
them, afterwards, when it is known how long it took. The packages are an extra:
requirements/telemetry.txt.
"""

import os
import time
from functools import cache
from threading import local
from typing import Any

from servicekit.correlation import Correlation
from servicekit.tracing import TraceContext

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class TelemetryNotInstalled(Exception):
    """Traces are to be exported, and the packages for it are not there."""

    def __init__(self, missing: str) -> None:
        super().__init__(
            f"{ENDPOINT} is set, but {missing} is not installed: "
            "pip install --require-hashes -r requirements/telemetry.txt, or leave it empty."
        )


class Recorder:
    """Tells the collector about work that is done; sending is another thread's business."""

    def __init__(self, provider: Any, ids: Any) -> None:
        from opentelemetry import trace  # noqa: PLC0415 - an extra

        self._api = trace
        self._ids = ids
        self._provider = provider
        self._tracer = provider.get_tracer("servicekit")

    def record(
        self, name: str, *, kind: str, work: TraceContext, parent_id: str | None,
        seconds: float, attributes: dict[str, Any], is_error: bool = False,
    ) -> None:  # fmt: skip
        """Record work that has just ended, under its own place in the trace.

        `kind` is OpenTelemetry's: `SERVER` or `CONSUMER`. Without a parent it began the trace.
        What the caller in front of us has decided not to record is not recorded.
        """
        api = self._api
        ended_ns = time.time_ns()
        context = None
        if parent_id:
            before_us = api.SpanContext(
                int(work.trace_id, 16),
                int(parent_id, 16),
                is_remote=True,
                trace_flags=api.TraceFlags(work.flags),
            )
            context = api.set_span_in_context(api.NonRecordingSpan(before_us))
        self._ids.use(work)
        span = self._tracer.start_span(
            name,
            context=context,
            kind=api.SpanKind[kind],
            attributes=attributes,
            start_time=ended_ns - int(seconds * 1e9),
        )
        if is_error:
            span.set_status(api.StatusCode.ERROR)
        span.end(ended_ns)

    def record_message(
        self, queue: str, source: Correlation | None, *, seconds: float, attributes: dict[str, Any]
    ) -> None:
        """Record that a message of a batch was handled, in the trace that it came with, if any."""
        before_us = TraceContext.parse(source.traceparent) if source else None
        if before_us is not None:
            self.record(
                f"process {queue}",
                kind="CONSUMER",
                work=before_us.child(),
                parent_id=before_us.parent_id,
                seconds=seconds,
                attributes={
                    "messaging.system": "rabbitmq",
                    "messaging.operation.type": "process",
                    "messaging.destination.name": queue,
                    **attributes,
                },
            )

    def flush(self) -> None:
        """Send what is recorded, and return when that is done."""
        self._provider.force_flush()

    def close(self) -> None:
        """Send what is recorded, and end."""
        self._provider.shutdown()


@cache
def recorder() -> Recorder | None:
    """Return what records the work of this process, or None when nobody wants to know.

    :raises TelemetryNotInstalled: if somebody does, and the packages are missing
    """
    if not os.environ.get(ENDPOINT):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - an extra
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.trace import IdGenerator, TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise TelemetryNotInstalled(error.name or str(error)) from error

    class IdsThatTravel(IdGenerator):  # type: ignore[misc]  # an extra
        """Gives each span the ids that its messages have gone on under already."""

        def __init__(self) -> None:
            self._next = local()

        def use(self, work: TraceContext) -> None:
            self._next.work = work

        def generate_trace_id(self) -> int:
            return int(self._next.work.trace_id, 16)

        def generate_span_id(self) -> int:
            return int(self._next.work.parent_id, 16)

    ids = IdsThatTravel()
    provider = TracerProvider(id_generator=ids)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Recorder(provider, ids)
