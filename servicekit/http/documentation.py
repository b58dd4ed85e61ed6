"""Where the HTTP API of a service is described: `/schema` for programs, `/docs` for people."""

from functools import cache
from typing import Any

from django.urls import path
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer2, OpenApiYamlRenderer2
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.request import Request
from rest_framework.response import Response


@cache
def _document() -> dict[str, Any]:
    schema: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    return schema


class Schema(SpectacularAPIView):
    """The OpenAPI document: JSON, or YAML for `Accept: application/yaml` or `?format=yaml`."""

    renderer_classes = [OpenApiJsonRenderer2, OpenApiYamlRenderer2]

    def _get_schema_response(self, request: Request) -> Response:  # noqa: ARG002 - spectacular's signature
        return Response(_document())


urlpatterns = [
    path("schema", Schema.as_view(), name="schema"),
    path("docs", SpectacularSwaggerView.as_view(template_name="servicekit/docs.html"), name="docs"),
]
