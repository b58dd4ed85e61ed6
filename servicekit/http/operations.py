"""What is said of an operation of the HTTP API, in its OpenAPI document and on its pages.

A view method is decorated with an `Operation`; its docstring is the description. Nothing here
changes what the method does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from servicekit.http.fields import StrictSerializer
from servicekit.http.pages import DEFAULT_LIMIT, MAX_LIMIT

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
    """A header of an answer; `required` if each such answer has it."""

    name: str
    description: str
    schema: Schema = field(default_factory=lambda: {"type": "string"})
    required: bool = True


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

    do_not_call_in_templates: ClassVar[bool] = True  # where `form.operation.title` is meant

    id: str
    title: str
    answers: Mapping[int, Answer]
    takes: type[StrictSerializer] | None = None
    example: Mapping[str, Any] = field(default_factory=dict)
    parameters: Sequence[Parameter] = ()
    problems: Sequence[Problem] = ()
    needs_database: bool = True

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
        {"type": "string", "pattern": "^[A-Za-z0-9_-]{21}[AQgw]$"},
        "Where the page begins: from the `Link` header of the page before.",
    ),
)
"""The parameters of every list."""

IF_NONE_MATCH = header(
    "If-None-Match",
    {"type": "string", "examples": ['"1"']},
    "The `ETag` that the caller has; if it is still the present one, the answer is 304.",
)

LOCATION = Header("Location", "Where it is from now on.", {"type": "string", "format": "uri"})
ETAG = Header(
    "ETag", "The version, for `If-None-Match`.", {"type": "string", "pattern": '^"[0-9]+"$'}
)
LINK = Header(
    "Link",
    'The next page, if there is one: `<address>; rel="next"` (RFC 8288).',
    required=False,
)
INVALID = Problem(400, "invalid", "Something is missing, unknown or out of bounds: see `errors`.")
