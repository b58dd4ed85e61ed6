"""What every page that is not the admin's has: the head with its links, and problems as pages."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.template import loader

from servicekit.service import Service


@dataclass(frozen=True)
class Link:
    """A page that leads on from another."""

    title: str
    address: str
    description: str = ""


def accepts_html(environ: Mapping[str, Any]) -> bool:
    """Return whether a browser asks, and not a program, by the headers as WSGI names them."""
    return "text/html" in environ.get("HTTP_ACCEPT", "")


def wants_html(request: HttpRequest) -> bool:
    """Return the same of a request."""
    return accepts_html(request.META)


def page_context(request: HttpRequest) -> dict[str, Any]:
    """Return what the head of a page shows."""
    return {"service": settings.SERVICE, "peer": _peer(request)}


def _peer(request: HttpRequest) -> Link | None:
    service: Service = settings.SERVICE
    if settings.PEER_PUBLIC_URL:
        return Link(service.peer_name, settings.PEER_PUBLIC_URL)
    # Where the other service is for a browser, nobody has told us; on the standard ports it is
    # beside us.
    host, _, port = request.META.get("HTTP_HOST", "").rpartition(":")
    if port != str(service.port):
        return None
    return Link(service.peer_name, f"{request.scheme}://{host}:{service.peer_port}")


def problem_page(request: HttpRequest, document: dict[str, Any]) -> str:
    """Return a problem document as a page for a person."""
    template = loader.get_template("servicekit/problem.html")
    return template.render({**page_context(request), "problem": document})
