"""The root of a service: everything that there is, for programs and for people."""

from typing import Any

from drf_spectacular.utils import OpenApiResponse
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import APIRootView

from servicekit.http.links import absolute
from servicekit.http.openapi import AutoSchema
from servicekit.http.operations import Operation

_PAGES = {
    "docs": "/docs",
    "schema": "/schema",
    "admin": "/admin/",
    "health": "/health/ready",
    "metrics": "/metrics",
}


class ServiceRoot(APIRootView):
    """What a service has."""

    schema = AutoSchema()

    @Operation(
        operation_id="getRoot",
        summary="Get the addresses of everything",
        tags=["operation"],
        responses={200: OpenApiResponse(dict[str, str], "The addresses of everything, by name.")},
        needs_database=False,
    )
    def get(self, request: Request, *_args: Any, **_kwargs: Any) -> Response:
        """Everything that the service has, with its address."""
        asked = request._request  # noqa: SLF001 - DRF's own name for Django's request
        resources = {prefix: f"/{prefix}" for prefix in self.api_root_dict or {}}
        return Response(
            {name: absolute(asked, path) for name, path in {**resources, **_PAGES}.items()}
        )
