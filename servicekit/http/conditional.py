"""Answers for machines that need nothing of DRF: straight from bytes."""

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseNotModified
from django.utils.http import parse_etags


def accepts_html(environ: Mapping[str, Any]) -> bool:
    """Return whether a browser asks, and not a program, by the headers as WSGI names them."""
    return "text/html" in environ.get("HTTP_ACCEPT", "")


def wants_plain_json(request: HttpRequest) -> bool:
    """Return whether a caller takes JSON and asks for nothing that DRF would have to negotiate."""
    accept = request.META.get("HTTP_ACCEPT", "*/*")
    return (
        ("application/json" in accept or "*/*" in accept)
        and "text/html" not in accept
        # Weights and indentations are for DRF to understand.
        and ";" not in accept
        and "format=" not in request.META["QUERY_STRING"]
    )


def json_answer(
    body: bytes, headers: dict[str, str] | None = None, *, status: int = 200
) -> HttpResponse:
    """Return rendered JSON."""
    return HttpResponse(
        body, content_type="application/json; charset=utf-8", headers=headers, status=status
    )


def etag_of(version: int) -> str:
    """Return the strong entity tag (RFC 9110, section 8.8.3) of a version of a row."""
    return f'"{version}"'


def is_known(request: HttpRequest, etag: str) -> bool:
    """Return whether the caller has this version already and is answered 304."""
    # RFC 9110, section 13.1.2: compared weakly; `*` is any.
    header = request.META.get("HTTP_IF_NONE_MATCH", "")
    return bool(header) and any(
        tag.removeprefix("W/") in ("*", etag) for tag in parse_etags(header)
    )


def required_versions(request: HttpRequest) -> frozenset[str] | None:
    """Return the versions of which the row must have one, or None where any will do.

    From `If-Match` (RFC 9110, section 13.1.1), compared strongly: a weak tag matches no version.
    """
    tags = parse_etags(request.META.get("HTTP_IF_MATCH", "*"))
    return None if tags == ["*"] else frozenset(tag.strip('"') for tag in tags)


def wants_no_cache(request: HttpRequest) -> bool:
    """Return whether the caller takes no stored answer (RFC 9111, section 5.2.1.4)."""
    return "no-cache" in request.META.get("HTTP_CACHE_CONTROL", "").lower()


def tagged_answer(request: HttpRequest, body: bytes, etag: str) -> HttpResponse:
    """Return the body with its entity tag, or 304 for a caller that has it already."""
    # A browser that was given the JSON must not show it where its page belongs.
    headers = {"ETag": etag, "Vary": "Accept"}
    if is_known(request, etag):
        return HttpResponseNotModified(headers=headers)
    return json_answer(body, headers)
