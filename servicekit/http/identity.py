"""Who a request is: the ids under which its answer, its log lines and its messages are found."""

import logging
import time
import uuid
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from servicekit import origin
from servicekit.origin import Origin
from servicekit.tracing import TraceContext

logger = logging.getLogger(__name__)


class Identity:
    """Middleware: takes `X-Request-ID` and `traceparent` if they can be taken, or makes them.

    The request id is returned in the answer. Neither header can make a request fail.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request under its ids."""
        started = time.perf_counter()
        identity = _identity_of(request)
        with origin.of_request(identity):
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
        response["X-Request-ID"] = identity.request_id
        return response


def _identity_of(request: HttpRequest) -> Origin:
    request_id = request.META.get("HTTP_X_REQUEST_ID")
    if not origin.is_safe_request_id(request_id):
        request_id = uuid.uuid4().hex
    before_us = TraceContext.parse(request.META.get("HTTP_TRACEPARENT"))
    trace = before_us.child() if before_us else TraceContext.new()
    return Origin(request_id, str(trace))
