"""Who a request is: the ids under which its answer, its log lines and its messages are found."""

import logging
import random
import time
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from servicekit import correlation
from servicekit.correlation import Correlation

logger = logging.getLogger(__name__)


class RequestId:
    """Middleware: takes `X-Request-ID` and `traceparent` if they can be taken, or makes them.

    The request id is returned in the answer. Neither header can make a request fail.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request under its ids."""
        started = time.perf_counter()
        request_id = request.META.get("HTTP_X_REQUEST_ID")
        if not correlation.is_safe_request_id(request_id):
            request_id = f"{random.getrandbits(128):032x}"
        traceparent = correlation.known_traceparent(request.META.get("HTTP_TRACEPARENT"))
        source = Correlation(request_id, traceparent or correlation.new_traceparent())
        with correlation.of_request(source):
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
        response.headers["X-Request-ID"] = request_id
        if not response.streaming and "Content-Length" not in response.headers:
            response.headers["Content-Length"] = str(len(response.content))
        return response
