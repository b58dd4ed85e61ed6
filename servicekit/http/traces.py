"""Requests in traces: OpenTelemetry's instrumentation of Django, for both ways of answering."""

from typing import Any

from django.conf import settings
from django.core.handlers.exception import convert_exception_to_response
from django.utils.module_loading import import_string

from servicekit import telemetry
from servicekit.http.measuring import method_of, route_of


def start() -> None:
    """Have the requests of this process traced, if somebody wants to know.

    To be called before Django's handler is made, which loads the middleware.

    :raises TelemetryNotInstalled: if somebody does, and the packages are missing
    """
    if not telemetry.start():
        return
    from opentelemetry.instrumentation.django import DjangoInstrumentor  # noqa: PLC0415 - an extra

    # It puts its middleware before all others of pages.
    DjangoInstrumentor().instrument(request_hook=_begin, response_hook=_end)
    settings.API_MIDDLEWARE = [f"{__name__}.first", *settings.API_MIDDLEWARE]


def first(get_response: Any) -> Any:
    """Return the same middleware for programs."""
    # It looks at the host before all others, and may refuse it.
    return convert_exception_to_response(import_string(settings.MIDDLEWARE[0])(get_response))


def _begin(_span: Any, request: Any) -> None:
    from opentelemetry.propagate import inject  # noqa: PLC0415 - an extra

    # What follows has the span for its caller.
    place: dict[str, str] = {}
    inject(place)
    request.META["HTTP_TRACEPARENT"] = place["traceparent"]


def _end(span: Any, request: Any, response: Any) -> None:
    route = route_of(request)
    span.update_name(f"{method_of(request)} {route}")
    span.set_attributes({"http.route": route, "request_id": response["X-Request-ID"]})
