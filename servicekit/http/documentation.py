"""Where the HTTP API of a service is described: `/schema` for programs, `/docs` for people."""

from functools import cache
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer2, OpenApiYamlRenderer2
from drf_spectacular.views import SpectacularAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from servicekit.http.html import page_context
from servicekit.http.problems import reading_only


@cache
def _document() -> dict[str, Any]:
    schema: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    return schema


class Schema(SpectacularAPIView):
    """The OpenAPI document: JSON, or YAML for `Accept: application/yaml` or `?format=yaml`."""

    schema = None  # it does not describe itself
    authentication_classes = []
    renderer_classes = [OpenApiJsonRenderer2, OpenApiYamlRenderer2]

    def _get_schema_response(self, request: Request) -> Response:  # noqa: ARG002 - spectacular's signature
        return Response(_document())


@reading_only
def docs(request: HttpRequest) -> HttpResponse:
    """Show Swagger UI, from our own static files."""
    return render(request, "servicekit/docs.html", page_context(request))


urlpatterns = [
    path("schema", Schema.as_view(), name="schema"),
    path("docs", docs, name="docs"),
]
