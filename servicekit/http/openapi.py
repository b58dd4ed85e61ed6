"""The OpenAPI documents of both services, made from the `Operation`s of their views.

Bodies that are taken come from the strict serializers, answers from the structs that are rendered,
and what every operation has in common (its problems above all) is added here.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from drf_spectacular import openapi
from drf_spectacular.drainage import warn
from drf_spectacular.plumbing import ComponentIdentity, ResolvedComponent, force_instance
from drf_spectacular.utils import OpenApiResponse

from servicekit.http import openapi_serializers  # noqa: F401 - registers how serializers are read
from servicekit.http.operations import (
    INVALID,
    Operation,
    Problem,
    Schema,
    operation_of,
)
from servicekit.http.problems import CONTENT_TYPE as PROBLEM_CONTENT_TYPE
from servicekit.http.problems import title_of


class FieldError(msgspec.Struct, kw_only=True):
    """What is wrong with one field or parameter."""

    field: str
    code: str
    message: str


class ProblemDetails(msgspec.Struct, kw_only=True):
    """An error (RFC 9457). Branch on `code`: it never changes. Show `detail` to a person."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[FieldError] | msgspec.UnsetType = msgspec.UNSET


_CHALLENGE = {
    "WWW-Authenticate": {
        "description": "`Bearer`, and what is wrong with the key (RFC 6750).",
        "required": True,
        "schema": {"type": "string"},
    }
}
_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    }
}
_HEADERS = {401: _CHALLENGE, 429: _RETRY_AFTER, 503: _RETRY_AFTER}

_BAD_REQUEST = Problem(400, "bad_request", "The request is not valid HTTP for this host.")
_FOR_EVERYBODY = (
    _BAD_REQUEST,
    Problem(406, "not_acceptable", "`Accept` or `format` asks for what there is not."),
)
_UNAVAILABLE = Problem(
    503, "temporarily_unavailable", "The database does not answer now. Try again."
)
_OF_CALLERS = (
    Problem(401, "api_key_required", "There is no API key, and this service asks for one."),
    # Also where none is needed: one that is sent is checked.
    Problem(401, "api_key_invalid", "The API key is none of this service, or was revoked."),
    Problem(429, "rate_limited", "These are too many requests for one API key or address."),
)
_OF_KEYS = Problem(403, "insufficient_scope", "The API key is for something else.")
_NOT_FOUND = Problem(404, "not_found", "The path leads nowhere: the id is not a UUID.")
_OF_BODIES = (
    INVALID,
    Problem(400, "malformed_body", "The body is empty, or not JSON."),
    Problem(413, "body_too_large", "The body is larger than 64 KiB."),
    Problem(415, "unsupported_media_type", "The body is not `application/json`."),
)
PROBLEMS_OF_THE_FRAMEWORK = frozenset(
    each.code
    for each in (*_FOR_EVERYBODY, _UNAVAILABLE, _NOT_FOUND, *_OF_BODIES, *_OF_CALLERS, _OF_KEYS)
)
"""The codes that operations share, beside those of their service."""


class AutoSchema(openapi.AutoSchema):
    """Adds to what `extend_schema` says: answers that are structs, and problems."""

    def _resolve_path_parameters(self, variables: list[str]) -> list[Schema]:
        parameters: list[Schema] = super()._resolve_path_parameters(variables)  # type: ignore[no-untyped-call]  # spectacular has no types here
        for each in parameters:
            each["schema"] = {"type": "string", "format": "uuid"}  # all our ids are, see `routes`
        return parameters

    def _get_request_body(self, direction: Any = "request") -> Schema | None:
        body: Schema | None = super()._get_request_body(direction)  # type: ignore[no-untyped-call]  # nor here
        if body is not None:
            serializer = force_instance(self.get_request_serializer())
            body["required"] = serializer.needs_body()
        return body

    def _get_response_bodies(self, direction: Any = "response") -> Schema:
        operation = operation_of(self.view, self.method)
        if operation is None:
            warn(f"{self.method} {self.path} is not documented: decorate it with an `Operation`")
            return {}
        responses = super()._get_response_bodies(direction)
        by_status: dict[int, list[Problem]] = {}
        for each in self._problems(operation):
            by_status.setdefault(each.status, []).append(each)
        for status, problems in by_status.items():
            responses[str(status)] = self._problem_response(status, problems)
        return dict(sorted(responses.items()))

    def _get_response_for_code(
        self, serializer: OpenApiResponse, status_code: str, *args: Any, **kwargs: Any
    ) -> Schema:
        described = OpenApiResponse(None, serializer.description)
        response: Schema = super()._get_response_for_code(described, status_code, *args, **kwargs)  # type: ignore[no-untyped-call]  # nor here
        if serializer.response is not None:
            content = {"schema": self._schema_of(serializer.response)}
            response["content"] = {"application/json": content}
        return response

    def _problems(self, operation: Operation) -> Iterable[Problem]:
        yield from operation.problems
        if "{" in self.path:
            yield _NOT_FOUND
        if self.method in ("POST", "PATCH"):
            yield from _OF_BODIES
        elif self._process_override_parameters():  # type: ignore[no-untyped-call]  # nor here
            yield INVALID
        yield from _FOR_EVERYBODY
        if operation.scope:
            yield _OF_KEYS
        if operation.needs_database:
            yield from _OF_CALLERS
            yield _UNAVAILABLE

    def _problem_response(self, status: int, problems: Sequence[Problem]) -> Schema:
        members: Schema = {
            "status": {"const": status},
            "code": {"enum": sorted({each.code for each in problems})},
        }
        for each in problems:
            members.update(each.members)
        response: Schema = {
            "description": "\n".join(f"* `{each.code}`: {each.when}" for each in problems),
            "content": {
                PROBLEM_CONTENT_TYPE: {
                    "schema": {
                        "allOf": [self._schema_of(ProblemDetails)],
                        "properties": members,
                    },
                    "example": {
                        "type": "about:blank",
                        "title": title_of(status),
                        "status": status,
                        "code": problems[0].code,
                        "detail": problems[0].when,
                    },
                }
            },
        }
        if header := _HEADERS.get(status):
            response["headers"] = header
        return response

    def _schema_of(self, type_: Any) -> Schema:
        # msgspec reads its structs: names on the wire, bounds, formats, docstrings.
        (schema,), components = msgspec.json.schema_components(
            [type_], ref_template="#/components/schemas/{name}"
        )
        for name, component in components.items():
            component.pop("title", None)
            self.registry.register_on_missing(
                ResolvedComponent(
                    name=name,
                    type=ResolvedComponent.SCHEMA,
                    schema=component,
                    object=ComponentIdentity(name),
                )
            )
        return schema


def share_problems(result: Schema, **_options: Any) -> Schema:
    """Write what several operations answer alike once, under the names of its codes."""
    alike = defaultdict(list)
    for operations in result["paths"].values():
        for operation in operations.values():
            answers = operation["responses"]
            for status, answer in answers.items():
                if PROBLEM_CONTENT_TYPE in answer.get("content", {}):
                    alike[msgspec.json.encode(answer)].append((answers, status))
    shared: Schema = {}
    for places in alike.values():
        answers, status = places[0]
        schema = answers[status]["content"][PROBLEM_CONTENT_TYPE]["schema"]
        codes = schema["properties"]["code"]["enum"]
        name = "_or_".join(codes).title().replace("_", "")
        if len(places) > 1 and name not in shared:
            shared[name] = answers[status]
            for answers, status in places:
                answers[status] = {"$ref": f"#/components/responses/{name}"}
    result["components"]["responses"] = dict(sorted(shared.items()))
    return result
