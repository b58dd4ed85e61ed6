"""How many requests there are, how long they take, and how they end."""

import time
from collections.abc import Callable
from functools import lru_cache

from django.contrib.admindocs.views import simplify_regex
from django.http import HttpRequest, HttpResponse
from prometheus_client import Counter, Histogram

from servicekit import metrics

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
NO_ROUTE = "unmatched"
"""What requests to nowhere are counted under: there are as many paths as strangers think of."""


class Measuring:
    """Middleware: counts and times requests by route."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request and take its time."""
        started = time.perf_counter()
        response = self._get_response(request)
        _duration(method_of(request), route_of(request), response.status_code // 100).observe(
            time.perf_counter() - started
        )
        return response


# Finding a metric by its labels costs more than writing to it. Bounded by the routes.
@lru_cache(maxsize=2048)
def _duration(method: str, route: str, status_class: int) -> Histogram:
    return metrics.HTTP_REQUESTS.labels(method, route, f"{status_class}xx")


def method_of(request: HttpRequest) -> str:
    """Return the method; a name that somebody has thought up is `other`."""
    return request.method if request.method in _METHODS else "other"


def route_of(request: HttpRequest) -> str:
    """Return the template of the route that a request took: `/orders/<pk>`."""
    match = request.resolver_match
    if match is None or not match.route:
        return NO_ROUTE
    return _template(match.route, "admin" in match.app_names)


@lru_cache(maxsize=512)
def _template(route: str, is_admin: bool) -> str:  # noqa: FBT001 - cached by position
    # The admin has a dozen routes per model, which nobody needs to tell apart.
    return "/admin/" if is_admin else str(simplify_regex(route))


@lru_cache(maxsize=2048)
def problem_counter(method: str, route: str, code: str) -> Counter:
    """Return the counter of one kind of problem on one route."""
    return metrics.HTTP_PROBLEMS.labels(method, route, code)
