"""JSON in and out, strict and straight from bytes."""

from collections.abc import Mapping
from typing import IO, Any

import msgspec
from django.conf import settings
from django.http import HttpRequest
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer

from servicekit.contracts.fields import DoubledName, decode_strictly
from servicekit.http.problems import BodyTooLarge

_MAX_BODY_BYTES: int = settings.MAX_BODY_BYTES


class Rendered(bytes):
    """JSON that is rendered already, for instance a cached one; it is answered as it is."""

    __slots__ = ()


class JSONRenderer(BaseRenderer):
    """Renders what msgspec knows, structs included; leaves alone what is rendered already."""

    media_type = "application/json"
    format = "json"
    charset = "utf-8"

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,  # noqa: ARG002 - DRF's signature
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return the JSON; indented for the browsable API, which asks for it."""
        if data is None:
            return b""
        body = bytes(data) if isinstance(data, Rendered) else msgspec.json.encode(data)
        indent = (renderer_context or {}).get("indent")
        return msgspec.json.format(body, indent=indent) if indent else body


def read_body(request: HttpRequest) -> bytes:
    """Return the bytes of a bounded body.

    :raises BodyTooLarge: if it is longer than `MAX_BODY_BYTES`
    """
    if int(request.META.get("CONTENT_LENGTH") or 0) > _MAX_BODY_BYTES:
        raise BodyTooLarge
    body: bytes = request.read()
    return body


def parse_body(body: bytes) -> Any:
    """Return the value in a body, by RFC 8259 to the letter: no NaN, no BOM, no doubles.

    :raises ParseError: if it is not JSON
    """
    if not body:
        raise ParseError("The body is empty; a JSON object is expected.")
    try:
        # msgspec is the stricter reader, and the other one sees names that come twice.
        msgspec.json.decode(body)
        return decode_strictly(body.decode())
    except DoubledName as error:
        raise ParseError(f"The body is not valid: {error}.") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise ParseError(f"The body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise ParseError("The body is not valid JSON: it is nested too deeply.") from error


class StrictJSONParser(BaseParser):
    """DRF's way to `parse_body`."""

    media_type = "application/json"
    renderer_class = JSONRenderer  # the browsable API fills its form with it

    def parse(
        self,
        stream: IO[Any],  # noqa: ARG002 - DRF's signature
        media_type: str | None = None,  # noqa: ARG002 - as above
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the value.

        :raises BodyTooLarge, ParseError: if there is none
        """
        return parse_body(read_body((parser_context or {})["request"]._request))  # noqa: SLF001 - DRF's own name for Django's request
