"""What is said of an operation of the HTTP API, in its OpenAPI document.

A view method is decorated with an `Operation`; its docstring is the description. Nothing here
changes what the method does; `scope` says which API keys may call it (`servicekit.http.access`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from servicekit.http.fields import StrictSerializer
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


@dataclass(frozen=True)
class Header:
    """A header of an answer; on each such answer or on some."""

    name: str
    description: str
    schema: Schema = field(default_factory=lambda: {"type": "string"})
    is_always_there: bool = True


@dataclass(frozen=True)
class Parameter:
    """What a caller may send beside a body: in the query string or as a header."""

    place: Literal["query", "header"]
    name: str
    schema: Schema
    description: str
    required: bool = False


@dataclass(frozen=True)
class Answer:
    """A successful answer: what it holds (a struct, a list of structs, or nothing)."""

    body: Any
    description: str
    headers: Sequence[Header] = ()


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What a view method does, takes and answers; used as its decorator."""

    id: str
    title: str
    answers: Mapping[int, Answer]
    takes: type[StrictSerializer] | None = None
    is_body_required: bool = True
    example: Mapping[str, Any] = field(default_factory=dict)
    parameters: Sequence[Parameter] = ()
    problems: Sequence[Problem] = ()
    needs_database: bool = True
    scope: str | None = None
    """What an API key has to be for; None: anybody may call it."""

    def __call__(self, method: Method) -> Method:
        """Document the view method and return it, unchanged in what it does."""
        method.operation = self  # type: ignore[attr-defined]  # `operation_of` finds it here
        return method


def operation_of(view: Any, method: str) -> Operation | None:
    """Return what is documented of the method (GET, …) of a view or of its present action."""
    action = getattr(view, "action_map", None) or {}
    handler = getattr(view, action.get(method.lower(), method.lower()), None)
    found = getattr(handler, "operation", None)
    return found if isinstance(found, Operation) else None


def query(name: str, schema: Schema, description: str, *, required: bool = False) -> Parameter:
    """Return a parameter of the query string."""
    return Parameter("query", name, schema, description, required)


def header(name: str, schema: Schema, description: str) -> Parameter:
    """Return a header that a caller may send."""
    return Parameter("header", name, schema, description)


PAGE = (
    query(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
        "How many at most.",
    ),
    query(
        "cursor",
        {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
        "Where the page begins: from the `Link` header of the page before.",
    ),
)
"""The parameters of every list."""

IF_NONE_MATCH = header(
    "If-None-Match",
    {"type": "string", "examples": ['"1"']},
    "The `ETag` that the caller has; if it is still the present one, the answer is 304.",
)

NO_CACHE = header(
    "Cache-Control",
    {"type": "string", "examples": ["no-cache"]},
    "With `no-cache` the answer comes from the database, whatever is cached.",
)

IF_MATCH = header(
    "If-Match",
    {"type": "string", "examples": ['"1"']},
    "The `ETag` that the caller has seen; if there is another one now, the answer is 412.",
)

_KEY = r"[!#-\[\]-~]{1,255}"
IDEMPOTENCY_KEY = header(
    "Idempotency-Key",
    {
        "type": "string",
        "pattern": f'^(?:{_KEY}|"{_KEY}")$',
        "examples": ['"8e03978e-40d5-43dd-bc93-6894a57f9324"'],
    },
    "Made by the caller, new for each thing to be done: sent again with the same body, the request"
    " is done once and answered alike.",
)
IDEMPOTENCY_PROBLEMS = (
    Problem(400, "malformed_idempotency_key", "`Idempotency-Key` is not one."),
    Problem(422, "idempotency_key_reused", "The key was sent before, with another body."),
)

LOCATION = Header("Location", "Where it is from now on.", {"type": "string", "format": "uri"})
ETAG = Header(
    "ETag", "The version, for `If-None-Match`.", {"type": "string", "pattern": '^"[0-9]+"$'}
)
LINK = Header(
    "Link",
    'The next page, if there is one: `<address>; rel="next"` (RFC 8288).',
    is_always_there=False,
)
INVALID = Problem(400, "invalid", "Something is missing, unknown or out of bounds: see `errors`.")
