"""Addresses that answers name."""

from django.conf import settings
from django.http import HttpRequest


def absolute(request: HttpRequest, path: str) -> str:
    """Return the address of a path: at `PUBLIC_URL`, or where the request came to."""
    if settings.PUBLIC_URL:
        return f"{settings.PUBLIC_URL}{path}"
    # The host has been checked before; checking it again costs a regular expression.
    host = request.META.get("HTTP_HOST") or request.get_host()
    return f"{request.scheme}://{host}{path}"
