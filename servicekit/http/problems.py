"""Errors as both services answer them: RFC 9457 problem details with a stable `code`."""

import functools
import http
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from django.conf import settings
from django.core.exceptions import BadRequest
from django.db import InterfaceError, InternalError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions
from rest_framework.response import Response

from servicekit.http.conditional import accepts_html
from servicekit.http.deadline import DeadlineExceeded
from servicekit.http.measuring import method_of, problem_counter, route_of

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = "1"
# InternalError is what a read-only database says to a write.
_UNAVAILABLE_ERRORS = (OperationalError, InterfaceError, InternalError, DeadlineExceeded)
_UNAVAILABLE = (503, "temporarily_unavailable", "The database does not answer now.")
_NEWER_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}

# A code is part of the contract: it may be branched on, and never changes. DRF's own are good ones,
# but for this.
_CODES: dict[type[Exception], str] = {exceptions.ParseError: "malformed_body"}


class BodyTooLarge(exceptions.APIException):
    """The body is larger than any valid one."""

    status_code = 413
    default_detail = "The body is larger than 64 KiB."
    default_code = "body_too_large"


@dataclass(frozen=True)
class Translation:
    """How a domain error is answered: its text is the `detail`."""

    status: int
    code: str
    retry_after_seconds: str | None = None
    members: Callable[[Any], dict[str, Any]] = lambda _error: {}
    """What the document says beyond RFC 9457's own members."""


def title_of(status: int) -> str:
    """Return the words for a status (RFC 9110), the same in every version of Python."""
    return _NEWER_TITLES.get(status) or http.HTTPStatus(status).phrase


def problem(
    status: int, code: str, detail: str, errors: list[dict[str, str]] | None = None, **extra: Any
) -> dict[str, Any]:
    """Return a problem document. `errors` name the fields that are wrong, one entry each."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": title_of(status),
        "status": status,
        "code": code,
        "detail": detail,
        **extra,
    }
    if errors:
        document["errors"] = errors
    return document


def problem_response(request: HttpRequest, status: int, code: str, detail: str) -> HttpResponse:
    """Return a problem from outside DRF; as a page if a browser asks."""
    document = problem(status, code, detail)
    if accepts_html(request.META):
        context = {"service_name": settings.SERVICE_NAME, "problem": document}
        return render(request, "servicekit/problem.html", context, status=status)
    return HttpResponse(msgspec.json.encode(document), status=status, content_type=CONTENT_TYPE)


def _field_errors(detail: Any, path: str = "") -> Iterator[dict[str, str]]:
    """Flatten DRF's nested error details: `{"qty": ["…"]}` is one error in field `qty`."""
    if isinstance(detail, Mapping):
        for field, inner in detail.items():
            inside = (
                "" if field == "non_field_errors" else f"{path}.{field}" if path else str(field)
            )
            yield from _field_errors(inner, inside)
    elif isinstance(detail, list):
        for inner in detail:
            yield from _field_errors(inner, path)
    else:
        yield {"field": path, "code": getattr(detail, "code", "invalid"), "message": str(detail)}


def _of_framework(error: exceptions.APIException) -> dict[str, Any]:
    code = _CODES.get(type(error), error.default_code)
    if isinstance(error, exceptions.ValidationError):
        errors = list(_field_errors(error.detail))
        detail = "; ".join(
            f"{each['field']}: {each['message']}" if each["field"] else each["message"]
            for each in errors
        )
        return problem(error.status_code, code, detail, errors)
    return problem(error.status_code, code, str(error.detail))


def _count(context: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    if request := context.get("request"):
        problem_counter(method_of(request), route_of(request), document["code"]).inc()


def exception_handler(
    translations: Mapping[type[Exception], Translation],
) -> Callable[[Exception, dict[str, Any]], Response | None]:
    """Return a DRF exception handler that also knows a service's own errors."""

    def handle(error: Exception, context: dict[str, Any]) -> Response | None:
        headers = {}
        if translation := translations.get(type(error)):
            document = problem(
                translation.status, translation.code, str(error), **translation.members(error)
            )
            if translation.retry_after_seconds:
                headers["Retry-After"] = translation.retry_after_seconds
        elif isinstance(error, exceptions.APIException):
            document = _of_framework(error)
            if wait := getattr(error, "wait", None):  # of a throttled request
                headers["Retry-After"] = str(int(wait))
            if challenge := getattr(error, "auth_header", None):
                headers["WWW-Authenticate"] = challenge
        elif isinstance(error, _UNAVAILABLE_ERRORS):
            # The database is away, too slow, or takes no writes. Not our caller's fault, and not
            # for its eyes.
            logger.warning("answered 503: %s", error)
            document = problem(*_UNAVAILABLE)
            headers["Retry-After"] = RETRY_AFTER_SECONDS
        else:
            return None  # Django logs it and calls `server_error` below
        _count(context, document)
        renderer = getattr(context.get("request"), "accepted_renderer", None)
        is_page = renderer is not None and renderer.media_type == "text/html"
        return Response(
            document,
            status=document["status"],
            headers=headers,
            content_type=None if is_page else CONTENT_TYPE,
        )

    return handle


def reading_only(view: Callable[[HttpRequest], HttpResponse]) -> Callable[..., HttpResponse]:
    """Return the view for GET and HEAD, and a problem for any other method."""

    @csrf_exempt  # as below
    @functools.wraps(view)
    def answer(request: HttpRequest) -> HttpResponse:
        if request.method in ("GET", "HEAD"):
            return view(request)
        answer = problem_response(
            request, 405, "method_not_allowed", f'Method "{request.method}" not allowed.'
        )
        answer["Allow"] = "GET, HEAD"
        return answer

    return answer


@csrf_exempt  # or a POST to nowhere would hear of cookies first
def route_not_found(request: HttpRequest) -> HttpResponse:
    """Answer a path that no route has."""
    return problem_response(request, 404, "not_found", f"There is nothing at {request.path}.")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer what Django itself refuses before a view sees it."""
    detail = str(exception) if isinstance(exception, BadRequest) else "The request is not valid."
    return problem_response(request, 400, "bad_request", detail)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001 - Django's signature
    """Answer what Django forbids."""
    return problem_response(request, 403, "permission_denied", "This is not allowed.")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer a form without its token: an admin page that was open for too long, or a forgery."""
    return problem_response(
        request, 403, "csrf_failed", reason or "The CSRF token is missing or wrong."
    )


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer an error of ours: it is in the log, and nothing of it in the answer."""
    return problem_response(request, 500, "internal_error", "Something went wrong on our side.")
