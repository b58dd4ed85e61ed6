"""Correlation: the request that something goes back to, through however many messages."""

import re
from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import NamedTuple, TypeGuard

from servicekit.tracing import TraceContext

_OUR_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[01]")
_SAFE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Correlation(NamedTuple):
    """The ids of a request, as they travel; empty where they are not known."""

    request_id: str = ""
    traceparent: str = ""

    @classmethod
    def of_headers(cls, headers: object) -> "Correlation | None":
        """Read the headers of a message; what is missing or malformed is not known."""
        if not isinstance(headers, Mapping):
            return None
        return cls.of(headers.get("request_id"), headers.get("traceparent"))

    @classmethod
    def of(cls, request_id: object, traceparent: object) -> "Correlation | None":
        """Return what is known, or None where that is nothing."""
        # Nearly always as we wrote it: taken as it is, without taking it apart.
        if isinstance(traceparent, str) and _OUR_TRACEPARENT.fullmatch(traceparent):
            known_trace: TraceContext | str | None = traceparent
        else:
            known_trace = TraceContext.parse(traceparent)
        correlation = cls(
            request_id if is_safe_request_id(request_id) else "",
            str(known_trace) if known_trace else "",
        )
        return correlation if any(correlation) else None

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a message that goes back to it."""
        return {name: value for name, value in self._asdict().items() if value}

    @property
    def log_fields(self) -> dict[str, str]:
        """What log lines say of it."""
        fields = {"request_id": self.request_id, "trace_id": self.traceparent[3:35]}
        return {name: value for name, value in fields.items() if value}


def is_safe_request_id(value: object) -> TypeGuard[str]:
    """Return whether a stranger's request id may go into our answers, messages and logs."""
    return isinstance(value, str) and _SAFE_REQUEST_ID.fullmatch(value) is not None


_request: ContextVar[Correlation | None] = ContextVar("correlation", default=None)


def current() -> Correlation | None:
    """Return the request that is being answered in this thread."""
    return _request.get()


def headers() -> dict[str, str]:
    """Return the ids of the request that is being answered, as far as there is one."""
    request = _request.get()
    return request.headers if request else {}


class of_request:  # noqa: N801 - reads as what it does: `with of_request(its_correlation):`
    """Answer a request."""

    __slots__ = ("_source", "_token")

    def __init__(self, source: Correlation) -> None:
        self._source = source

    def __enter__(self) -> None:
        self._token: Token[Correlation | None] = _request.set(self._source)

    def __exit__(self, *_error: object) -> None:
        _request.reset(self._token)
