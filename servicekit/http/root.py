"""The root of a service: everything that there is, for programs and for people."""

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import APIRootView

from servicekit.http.html import Link
from servicekit.http.links import absolute
from servicekit.http.openapi import AutoSchema
from servicekit.http.operations import Answer, Operation

_PAGES = (
    Link("docs", "/docs", "The API, to read and to try out"),
    Link("schema", "/schema", "The same for programs: OpenAPI 3.1"),
    Link("admin", "/admin/", "For those who run the shop"),
    Link("health", "/health/ready", "Whether it can do its work"),
    Link("metrics", "/metrics", "For Prometheus"),
)


class ServiceRoot(APIRootView):
    """What a service has."""

    schema = AutoSchema()

    @Operation(
        id="getRoot",
        title="Get the addresses of everything",
        answers={200: Answer(dict[str, str], "The addresses of everything, by name.")},
        needs_database=False,
    )
    def get(self, request: Request, *_args: Any, **_kwargs: Any) -> Response:
        """Everything that the service has, with its address."""
        asked = request._request  # noqa: SLF001 - DRF's own name for Django's request
        return Response({link.title: absolute(asked, link.address) for link in self.links()})

    def links(self) -> list[Link]:
        """Return the same for the page."""
        resources = [
            Link(prefix, f"/{prefix}", "Browse, and try every call")
            for prefix in self.api_root_dict or {}
        ]
        return [*resources, *_PAGES]
