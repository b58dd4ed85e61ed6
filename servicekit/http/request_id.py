"""Who a request is: the ids under which its answer, its log lines and its messages are found."""

import logging
import random
import time
from collections.abc import Callable
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse

from servicekit import correlation, telemetry
from servicekit.correlation import Correlation
from servicekit.http.measuring import method_of, route_of
from servicekit.tracing import TraceContext

logger = logging.getLogger(__name__)


class RequestId:
    """Middleware: takes `X-Request-ID` and `traceparent` if they can be taken, or makes them.

    The request id is returned in the answer. Neither header can make a request fail.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        self._recorder = telemetry.recorder()

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request under its ids."""
        started = time.perf_counter()
        request_id = request.META.get("HTTP_X_REQUEST_ID")
        if not correlation.is_safe_request_id(request_id):
            request_id = f"{random.getrandbits(128):032x}"
        before_us = TraceContext.parse(request.META.get("HTTP_TRACEPARENT"))
        trace = before_us.child() if before_us else TraceContext.new()
        with correlation.of_request(Correlation(request_id, str(trace))):
            response = self._get_response(request)
            # Two lines per request, one here and one of what it did, would cost more than some
            # requests do: at DEBUG only.
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug(
                    "%s %s: %d",
                    request.method,
                    request.path,
                    response.status_code,
                    extra={"milliseconds": round((time.perf_counter() - started) * 1000, 1)},
                )
        if self._recorder is not None:
            method, route = method_of(request), route_of(request)
            self._recorder.record(
                f"{method} {route}",
                kind="SERVER",
                work=trace,
                parent_id=before_us.parent_id if before_us else None,
                seconds=time.perf_counter() - started,
                attributes={
                    "http.request.method": method,
                    "http.route": route,
                    "http.response.status_code": response.status_code,
                    "request_id": request_id,
                },
                is_error=response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR,
            )
        response.headers["X-Request-ID"] = request_id
        if not response.streaming and "Content-Length" not in response.headers:
            response.headers["Content-Length"] = str(len(response.content))
        return response
