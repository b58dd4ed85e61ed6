"""Traces, as a collector gets them: off by default, and joined by the ids that travel anyway."""

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import RequestFactory

from servicekit import correlation, telemetry
from servicekit.correlation import Correlation
from servicekit.http.request_id import RequestId
from servicekit.telemetry import TelemetryNotInstalled

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Whether traces are wanted is asked once per process; each of these tests is one."""
    telemetry.recorder.cache_clear()
    yield
    telemetry.recorder.cache_clear()


class TestRecorder:
    def test_is_nobody_when_nobody_wants_to_know(self, monkeypatch):
        monkeypatch.setenv(telemetry.ENDPOINT, "")

        assert telemetry.recorder() is None

    def test_says_at_the_start_what_is_missing(self, monkeypatch):
        monkeypatch.setenv(telemetry.ENDPOINT, "http://127.0.0.1:1")
        for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "opentelemetry", None)

        with pytest.raises(TelemetryNotInstalled, match=r"requirements/telemetry\.txt"):
            RequestId(lambda _request: HttpResponse())


class Collector:
    """Takes traces by OTLP over HTTP."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        bodies = self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02])
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def spans(self) -> list[Any]:
        """Return what has come in, in the order of its end."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415 - an extra
            ExportTraceServiceRequest,
        )

        telemetry.recorder().flush()
        return [
            span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector(monkeypatch) -> Iterator[Collector]:
    pytest.importorskip("opentelemetry.sdk")
    collector = Collector()
    monkeypatch.setenv(telemetry.ENDPOINT, collector.url)
    yield collector
    telemetry.recorder().close()
    collector.close()


class TestSpans:
    def answer(self, status: int = 200, **headers: str) -> Correlation:
        seen = []

        def view(_request: object) -> HttpResponse:
            seen.append(correlation.current())
            return HttpResponse(status=status)

        RequestId(view)(RequestFactory().get("/products", headers=headers))
        return seen[0]

    def test_of_a_request_lie_between_its_caller_and_its_messages(self, collector):
        sent = self.answer(traceparent=f"00-{TRACE}-{PARENT}-01")

        [span] = collector.spans()
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
        assert span.span_id.hex() == sent.traceparent[36:52]
        assert span.start_time_unix_nano <= span.end_time_unix_nano

    def test_begin_the_trace_of_a_request_that_comes_with_none(self, collector):
        sent = self.answer()

        [span] = collector.spans()
        assert span.trace_id.hex() == sent.traceparent[3:35]
        assert span.parent_span_id == b""

    def test_of_messages_lie_under_the_request_that_they_go_back_to(self, collector):
        source = self.answer()
        telemetry.recorder().record_message("a_queue", source, seconds=0.5, attributes={"n": 1})
        telemetry.recorder().record_message("a_queue", None, seconds=0.5, attributes={})

        request, message = collector.spans()
        assert message.name == "process a_queue"
        assert message.trace_id == request.trace_id
        assert message.parent_span_id == request.span_id
        assert message.end_time_unix_nano - message.start_time_unix_nano == 500_000_000

    def test_are_left_out_when_the_caller_has_decided_so(self, collector):
        self.answer(traceparent=f"00-{TRACE}-{PARENT}-00")

        assert collector.spans() == []

    def test_say_what_went_wrong_on_our_side(self, collector):
        self.answer(404)
        self.answer(503)

        assert [span.status.code for span in collector.spans()] == [0, 2]
