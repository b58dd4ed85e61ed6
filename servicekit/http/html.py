"""Pages that are not the admin's: who gets one, and problems as pages."""

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.template import loader


def accepts_html(environ: Mapping[str, Any]) -> bool:
    """Return whether a browser asks, and not a program, by the headers as WSGI names them."""
    return "text/html" in environ.get("HTTP_ACCEPT", "")


def wants_html(request: HttpRequest) -> bool:
    """Return the same of a request."""
    return accepts_html(request.META)


def page_context() -> dict[str, Any]:
    """Return what every page shows."""
    return {"service_name": settings.SERVICE_NAME}


def problem_page(request: HttpRequest, document: dict[str, Any]) -> str:
    """Return a problem document as a page for a person."""
    template = loader.get_template("servicekit/problem.html")
    return template.render({**page_context(), "request": request, "problem": document})
