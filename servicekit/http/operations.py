"""What is said of an operation of the HTTP API, in its OpenAPI document.

A view method is decorated with an `Operation`; its docstring is the description. Nothing here
changes what the method does; `scope` says which API keys may call it (`servicekit.http.access`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema

from servicekit.http.pagination import DEFAULT_LIMIT, MAX_LIMIT

Method = TypeVar("Method", bound=Callable[..., Any])
Schema = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """One error that an operation may answer, and when; `members` are schemas of extra members."""

    status: int
    code: str
    when: str
    members: Mapping[str, Schema] = field(default_factory=dict)


class Operation:
    """`extend_schema` with the problems of a view method; used as its decorator."""

    def __init__(
        self,
        *,
        problems: Sequence[Problem] = (),
        needs_database: bool = True,
        scope: str | None = None,
        example: Mapping[str, Any] | None = None,
        **described: Any,
    ) -> None:
        """Take what `extend_schema` takes, and an example of a body.

        `scope` is what an API key has to be for; None: anybody may call it.
        """
        self.problems = problems
        self.needs_database = needs_database
        self.scope = scope
        if example:
            described["examples"] = [OpenApiExample("Body", example, request_only=True)]
        auth: list[Any] = [{}, {"apiKey": [scope]}] if scope else []
        self._describe = extend_schema(auth=auth, **described)

    def __call__(self, method: Method) -> Method:
        """Document the view method and return it, unchanged in what it does."""
        method.operation = self  # type: ignore[attr-defined]  # `operation_of` finds it here
        return self._describe(method)


def operation_of(view: Any, method: str) -> Operation | None:
    """Return what is documented of the method (GET, …) of a view or of its present action."""
    action = getattr(view, "action_map", None) or {}
    handler = getattr(view, action.get(method.lower(), method.lower()), None)
    found = getattr(handler, "operation", None)
    return found if isinstance(found, Operation) else None


header = partial(OpenApiParameter, location=OpenApiParameter.HEADER)

PAGE = (
    OpenApiParameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
        description="How many at most.",
    ),
    OpenApiParameter(
        "cursor",
        {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
        description="Where the page begins: from the `Link` header of the page before.",
    ),
)
"""The parameters of every list."""

IF_NONE_MATCH = header(
    "If-None-Match",
    {"type": "string", "examples": ['"1"']},
    description="The `ETag` that the caller has; if it is still the present one, the answer is"
    " 304.",
)

NO_CACHE = header(
    "Cache-Control",
    {"type": "string", "examples": ["no-cache"]},
    description="With `no-cache` the answer comes from the database, whatever is cached.",
)

IF_MATCH = header(
    "If-Match",
    {"type": "string", "examples": ['"1"']},
    description="The `ETag` that the caller has seen; if there is another one now, the answer is"
    " 412.",
)

_KEY = r"[!#-\[\]-~]{1,255}"
IDEMPOTENCY_KEY = header(
    "Idempotency-Key",
    {
        "type": "string",
        "pattern": f'^(?:{_KEY}|"{_KEY}")$',
        "examples": ['"8e03978e-40d5-43dd-bc93-6894a57f9324"'],
    },
    description="Made by the caller, new for each thing to be done: sent again with the same body,"
    " the request is done once and answered alike.",
)
IDEMPOTENCY_PROBLEMS = (
    Problem(400, "malformed_idempotency_key", "`Idempotency-Key` is not one."),
    Problem(422, "idempotency_key_reused", "The key was sent before, with another body."),
)

LOCATION = header(
    "Location",
    {"type": "string", "format": "uri"},
    required=True,
    description="Where it is from now on.",
    response=[201],
)
ETAG = header(
    "ETag",
    {"type": "string", "pattern": '^"[0-9]+"$'},
    required=True,
    description="The version, for `If-None-Match`.",
    response=[200, 201, 304],
)
LINK = header(
    "Link",
    {"type": "string"},
    description='The next page, if there is one: `<address>; rel="next"` (RFC 8288).',
    response=[200],
)
CROSS_SITE = Problem(403, "cross_site", "A page of another site asks, without a JSON body.")
INVALID = Problem(400, "invalid", "Something is missing, unknown or out of bounds: see `errors`.")
