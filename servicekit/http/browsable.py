"""DRF's browsable API, with the name of the service and a pager for pages that a header names.

A page shows the answer as a program would get it. What its forms send is JSON: the API takes
nothing else, so there is one way into the services, for people and for programs, and none for a
form on another site.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.template import loader
from rest_framework.renderers import BrowsableAPIRenderer
from rest_framework.response import Response

_NEXT_PAGE = re.compile(r'<([^>]+)>; rel="next"')


class _Pager:
    """What DRF's page shows of a paginator, made of the header `Link`."""

    def __init__(self, next_url: str) -> None:
        self._next_url = next_url

    def to_html(self) -> str:
        template = loader.get_template("rest_framework/pagination/previous_and_next.html")
        return template.render({"next_url": self._next_url, "previous_url": None})


class BrowsableRenderer(BrowsableAPIRenderer):
    """Renders an answer as a page."""

    def get_context(
        self, data: Any, accepted_media_type: str | None, renderer_context: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Return what the page shows."""
        assert renderer_context is not None  # noqa: S101 - DRF always gives it
        response: Response = renderer_context["response"]
        # The tag is that of the JSON. A browser that came back with it would be shown an old page.
        del response["ETag"]
        context = {
            **super().get_context(data, accepted_media_type, renderer_context),
            "service_name": settings.SERVICE_NAME,
        }
        if next_page := _NEXT_PAGE.match(response.get("Link", "")):
            context["paginator"] = _Pager(next_page[1])
        return context

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the page; nothing where HTTP allows nothing."""
        response: Response = (renderer_context or {})["response"]
        if response.status_code == HTTPStatus.NOT_MODIFIED:
            return b""
        return super().render(data, accepted_media_type, renderer_context)
