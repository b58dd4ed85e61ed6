"""What the OpenAPI documents of both services say of a service as a whole."""

from typing import Any

from servicekit import __version__

_HOW_TO_USE = """
## Requests

Bodies are JSON objects, read strictly: an unknown field, a number in quotes or a fraction is an \
error, not a guess. Money is an integer in the smallest unit of the currency. Times are UTC with \
milliseconds (RFC 3339). Ids are UUIDs made by the service.

## API keys

Whether one is needed is a setting of the service. It is sent as `Authorization: Bearer shop_…`; \
it is good for one service, and for the scopes that were chosen when it was made in the admin. One \
that is sent is checked, also where none is needed. After a 429, `Retry-After` says when to go on.

## Errors

Every error is a problem document (RFC 9457, `application/problem+json`). Branch on its `code`, \
which never changes; show its `detail` to a person. `errors` names each field that is wrong. A 503 \
says in `Retry-After` when to come back. A method that a path does not have is answered with 405 \
and `Allow`.

## Pages

Lists are bare arrays, newest first. Where there is more, the header `Link` holds the address of \
the next page (`rel="next"`, RFC 8288): follow it as it is. A page neither repeats nor skips items \
that are added meanwhile.
"""


def spectacular(
    *, title: str, description: str, tags: dict[str, str], live: str, ready: str
) -> dict[str, Any]:
    """Return `SPECTACULAR_SETTINGS` for a service.

    `live` and `ready` say what those two answers mean here.
    """

    def get(
        operation: str, summary: str, statuses: dict[str, str], content: Any = None, **more: Any
    ) -> dict[str, Any]:
        health = {"application/json": {"schema": {"$ref": "#/components/schemas/Health"}}}
        return {
            "get": {
                "operationId": operation,
                "summary": summary,
                **more,
                "tags": ["operation"],
                "responses": {
                    status: {"description": text, "content": content or health}
                    for status, text in statuses.items()
                },
            }
        }

    return {
        "OAS_VERSION": "3.1.1",
        "TITLE": title,
        "VERSION": __version__,
        "DESCRIPTION": f"{description}\n{_HOW_TO_USE}",
        "LICENSE": {"name": "MIT", "identifier": "MIT"},
        "TAGS": [
            *({"name": name, "description": text} for name, text in tags.items()),
            {"name": "operation", "description": "For those who run the service."},
        ],
        "SERVE_INCLUDE_SCHEMA": False,
        "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
        "COMPONENT_SPLIT_PATCH": False,
        "POSTPROCESSING_HOOKS": ["servicekit.http.openapi.share_problems"],
        "SWAGGER_UI_DIST": "SIDECAR",
        "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
        "SWAGGER_UI_SETTINGS": {
            "deepLinking": True,
            "displayOperationId": True,
            "displayRequestDuration": True,
            "tryItOutEnabled": True,
            "docExpansion": "list",
            "defaultModelsExpandDepth": 0,
            # Or the document would be sent to a server on the internet.
            "validatorUrl": None,
        },
        "APPEND_PATHS": {
            "/health/live": get("isLive", "Is the process alive?", {"200": live}),
            "/health/ready": get(
                "isReady",
                "Can it do its work?",
                {
                    "200": f"{ready} `degraded`: it works without what is down.",
                    "503": "`not_ready`: it does not work now.",
                },
                parameters=[
                    {
                        "name": "details",
                        "in": "query",
                        "description": "Tell also how each part is, whatever the value.",
                        "schema": {"type": "string"},
                        "allowEmptyValue": True,
                    }
                ],
            ),
            "/metrics": get(
                "getMetrics",
                "Get the metrics",
                {"200": "In the text format of Prometheus."},
                {"text/plain": {"schema": {"type": "string"}}},
                description="For Prometheus: requests, orders, queues, caches.",
            ),
        },
        "APPEND_COMPONENTS": {
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, made in the admin.",
                }
            },
            "schemas": {
                "Health": {
                    "type": "object",
                    "properties": {
                        "status": {"enum": ["live", "ready", "degraded", "not_ready"]},
                        "checks": {
                            "type": "object",
                            "description": "Each thing that the service uses.",
                            "additionalProperties": {"enum": ["up", "down"]},
                        },
                        "details": {
                            "type": "array",
                            "description": "How each part is, and what to do unless it is well.",
                            "items": {
                                "type": "object",
                                "properties": {
                                    **{
                                        name: {"type": "string"}
                                        for name in ("of", "what", "figure", "advice", "page")
                                    },
                                    "state": {"enum": ["well", "degraded", "down", "unknown"]},
                                },
                            },
                        },
                    },
                    "required": ["status"],
                }
            },
        },
    }
