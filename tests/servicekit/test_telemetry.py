"""Traces: nothing of them by default, and batches beside what OpenTelemetry's packages tell.

What they tell of a whole system is in tests/system/test_monitoring.py.
"""

import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from servicekit import telemetry
from servicekit.correlation import Correlation, new_traceparent
from servicekit.telemetry import TelemetryNotInstalled


class TestStart:
    def test_does_nothing_when_nobody_wants_to_know(self):
        # redis-py imports the API by itself where it is there.
        program = (
            "import sys, products_project.config.wsgi; from servicekit import telemetry\n"
            "telemetry.batch_span('a_queue', [])\n"
            "print({'opentelemetry.sdk.trace', 'opentelemetry.instrumentation'} & {*sys.modules})"
        )
        said = subprocess.check_output([sys.executable, "-c", program], text=True)

        assert said.splitlines()[-1] == "set()"

    def test_says_what_is_missing(self, monkeypatch):
        monkeypatch.setenv(telemetry.ENDPOINT, "http://127.0.0.1:1")
        for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "opentelemetry", None)

        with pytest.raises(TelemetryNotInstalled, match=r"requirements/telemetry\.txt"):
            telemetry.start()


def a_request(*, is_recorded: bool = True) -> Correlation:
    return Correlation("me", new_traceparent()[:-1] + str(int(is_recorded)))


def places(contexts: Any) -> set[str]:
    """Return the places in traces as they travel, without their flags."""
    return {f"00-{each.trace_id:032x}-{each.span_id:016x}" for each in contexts}


def places_of(*requests: Correlation) -> set[str]:
    return {each.traceparent[:-3] for each in requests}


class TestBatchSpan:
    @pytest.fixture
    def span_of(self, monkeypatch) -> Callable[..., Any]:
        """Return a function that handles a batch, and returns its span, if there is one."""
        sdk = pytest.importorskip("opentelemetry.sdk.trace")
        spans: list[Any] = []

        class Spans(sdk.SpanProcessor):
            def on_end(self, span: Any) -> None:
                spans.append(span)

        provider = telemetry.provider()
        provider.add_span_processor(Spans())
        monkeypatch.setattr(telemetry, "_tracer", provider.get_tracer("test"))

        def handle(*sources: Correlation | None) -> Any:
            with telemetry.batch_span("a_queue", sources):
                pass
            return spans.pop() if spans else None

        return handle

    def test_is_none_when_nobody_wants_to_know(self):
        assert isinstance(telemetry.batch_span("a_queue", [a_request()]), nullcontext)

    def test_is_a_part_of_the_trace_of_its_only_request(self, span_of):
        request = a_request()
        span = span_of(request, request)

        assert (span.name, span.kind.name) == ("process a_queue", "CONSUMER")
        assert places([span.parent]) == places_of(request)
        assert span.attributes["messaging.batch.message_count"] == 2

    def test_is_linked_to_each_request_of_several(self, span_of):
        requests = [a_request() for _ in range(500)]
        span = span_of(*requests, None, Correlation("without a trace"))

        assert span.parent is None
        assert places(link.context for link in span.links) == places_of(*requests)

    def test_leaves_out_who_is_not_to_be_recorded(self, span_of):
        silent = [a_request(is_recorded=False) for _ in range(2)]
        told = [a_request(), a_request()]

        assert span_of(*silent) is None
        assert places(link.context for link in span_of(*silent, *told).links) == places_of(*told)

    def test_begins_a_trace_for_messages_that_come_from_no_request(self, span_of):
        span = span_of(None)

        assert (span.parent, span.links) == (None, ())
