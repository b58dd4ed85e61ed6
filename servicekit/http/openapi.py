"""The OpenAPI documents of both services, made from the `Operation`s of their views.

Bodies that are taken come from the strict serializers, answers from the structs that are rendered,
and what every operation has in common (its problems above all) is added here.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from drf_spectacular import openapi
from drf_spectacular.drainage import warn
from drf_spectacular.plumbing import ComponentIdentity, ResolvedComponent
from drf_spectacular.utils import OpenApiParameter

from servicekit.http import openapi_serializers  # noqa: F401 - registers how serializers are read
from servicekit.http.operations import (
    INVALID,
    Answer,
    Header,
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


_RETRY_AFTER = Header(
    "Retry-After", "Seconds after which to try again.", {"type": "string", "pattern": "^[0-9]+$"}
)
_CHALLENGE = Header("WWW-Authenticate", "`Bearer`, and what is wrong with the key (RFC 6750).")
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
# Answered by many operations with the same codes: written once, under these names.
_SHARED_RESPONSES = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "InsufficientScope",
    406: "NotAcceptable",
    413: "BodyTooLarge",
    415: "UnsupportedMediaType",
    429: "RateLimited",
    503: "Unavailable",
}

_SHARED_PROBLEMS = (
    *(_BAD_REQUEST, _UNAVAILABLE, _OF_KEYS, *_OF_CALLERS, *_FOR_EVERYBODY, *_OF_BODIES[2:]),
)

PROBLEMS_OF_THE_FRAMEWORK = frozenset(
    each.code
    for each in (*_FOR_EVERYBODY, _UNAVAILABLE, _NOT_FOUND, *_OF_BODIES, *_OF_CALLERS, _OF_KEYS)
)
"""The codes that operations share, beside those of their service."""


class AutoSchema(openapi.AutoSchema):
    """Reads an operation from the `Operation` on its view method."""

    def get_operation(self, *args: Any, **kwargs: Any) -> Schema | None:
        """Return the OpenAPI operation, or none for a method that nobody documented."""
        method = str(args[3] if len(args) > 3 else kwargs["method"])  # noqa: PLR2004 - its place
        if operation_of(self.view, method) is None:
            warn(f"{method} {args[0]} is not documented: decorate it with an `Operation`")
            return None
        return super().get_operation(*args, **kwargs)

    @property
    def _documented(self) -> Operation:
        found = operation_of(self.view, self.method)
        assert found is not None  # noqa: S101 - `get_operation` has made sure
        return found

    def get_operation_id(self) -> str:
        """Return the name that generated clients have for it."""
        return self._documented.id

    def get_summary(self) -> str:
        """Return the title that people see in lists."""
        return self._documented.title

    def get_tags(self) -> list[str]:
        """Return the resource, or that it is none."""
        return super().get_tags() or ["operation"]

    def _resolve_path_parameters(self, variables: list[str]) -> list[Schema]:
        parameters: list[Schema] = super()._resolve_path_parameters(variables)  # type: ignore[no-untyped-call]  # spectacular has no types here
        for each in parameters:
            each["schema"] = {"type": "string", "format": "uuid"}  # all our ids are, see `routes`
        return parameters

    def get_auth(self) -> list[Schema]:
        """Return what an API key has to be for. By the setting of the service, none is needed."""
        scope = self._documented.scope
        return [{}, {"apiKey": [scope]}] if scope else []

    def get_override_parameters(self) -> list[Any]:
        """Return the query parameters and headers that may be sent."""
        return [
            OpenApiParameter(
                each.name,
                each.schema,
                each.place,
                description=each.description,
                required=each.required,
            )
            for each in self._documented.parameters
        ]

    def get_request_serializer(self) -> Any:
        """Return what reads the body."""
        return self._documented.takes

    def get_response_serializers(self) -> Any:
        """Return nothing: answers are structs, no serializers."""
        return None

    def _get_request_body(self, direction: Any = "request") -> Schema | None:
        body: Schema | None = super()._get_request_body(direction)  # type: ignore[no-untyped-call]  # nor here
        if body is None:
            return None
        body["required"] = self._documented.is_body_required
        if self._documented.example:
            for media_type in body["content"].values():
                media_type["example"] = dict(self._documented.example)
        return body

    def _get_response_bodies(self, direction: Any = "response") -> Schema:  # noqa: ARG002 - spectacular's signature
        responses = {
            str(status): self._answer(answer) for status, answer in self._documented.answers.items()
        }
        by_status: dict[int, list[Problem]] = {}
        for each in self._problems():
            by_status.setdefault(each.status, []).append(each)
        for status in sorted(by_status):
            responses[str(status)] = self._problem_response(status, by_status[status])
        return dict(sorted(responses.items()))

    def _problems(self) -> Iterable[Problem]:
        operation = self._documented
        yield from operation.problems
        if "{" in self.path:
            yield _NOT_FOUND
        if operation.takes:
            yield from _OF_BODIES
        elif operation.parameters and INVALID not in operation.problems:
            yield INVALID
        yield from _FOR_EVERYBODY
        if operation.scope:
            yield _OF_KEYS
        if operation.needs_database:
            yield from _OF_CALLERS
            yield _UNAVAILABLE

    def _answer(self, answer: Answer) -> Schema:
        response: Schema = {"description": answer.description}
        if answer.headers:
            response["headers"] = {each.name: _header(each) for each in answer.headers}
        if answer.body is not None:
            response["content"] = {"application/json": {"schema": self._schema_of(answer.body)}}
        return response

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
            response["headers"] = {header.name: _header(header)}
        if status in _SHARED_RESPONSES and problems[0] in _SHARED_PROBLEMS:
            return self._register(ResolvedComponent.RESPONSE, _SHARED_RESPONSES[status], response)
        return response

    def _schema_of(self, type_: Any) -> Schema:
        # msgspec reads its structs: names on the wire, bounds, formats, docstrings.
        (schema,), components = msgspec.json.schema_components(
            [type_], ref_template="#/components/schemas/{name}"
        )
        for name, component in components.items():
            component.pop("title", None)
            self._register(ResolvedComponent.SCHEMA, name, component)
        return schema

    def _register(self, kind: str, name: str, schema: Schema) -> Schema:
        component = ResolvedComponent(
            name=name, type=kind, schema=schema, object=ComponentIdentity(name)
        )
        self.registry.register_on_missing(component)
        return component.ref


def _header(described: Header) -> Schema:
    return {
        "description": described.description,
        "required": described.is_always_there,
        "schema": described.schema,
    }
