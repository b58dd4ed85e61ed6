"""Correlation: the request that something goes back to, through however many messages.

Its place in a trace (W3C Trace Context, www.w3.org/TR/trace-context) is passed on as it came: as
long as we record nothing there (`servicekit.telemetry`), what comes after us lies under our caller.
"""

import random
import re
from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import NamedTuple, TypeGuard

# Version 00 is exactly this; what a later version adds comes after another hyphen (section 4.3).
_TRACEPARENT = re.compile(
    r"(00(?!.{54})|(?!00|ff)[0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    r"(-.{0,456})?"
)
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
        correlation = cls(
            request_id if is_safe_request_id(request_id) else "", known_traceparent(traceparent)
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


def known_traceparent(value: object) -> str:
    """Return a `traceparent` as it may go on; empty for what the specification does not allow."""
    if not isinstance(value, str) or _TRACEPARENT.fullmatch(value) is None:
        return ""
    # Of the flags we pass on the one that we know, as of a later version we may not more.
    return f"00{value[2:53]}0{int(value[54], 16) & 1}"


def new_traceparent() -> str:
    """Return the beginning of a trace; nobody has decided against recording it."""
    # Not a secret, and a tenth of the cost of one. Neither id is ever 0, which would be none.
    ids = f"{random.getrandbits(192) | 1 << 64 | 1:048x}"
    return f"00-{ids[:32]}-{ids[32:]}-01"


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
