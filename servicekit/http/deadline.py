"""The time that a request has: set when it comes in, spent by every step of it.

Under gevent it holds whatever a step waits for: a timer ends the waiting. Elsewhere (in tests, in
`manage.py`) the steps bound themselves by what is `remaining`.
"""

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar

import gevent
from gevent.monkey import is_module_patched

REQUEST_SECONDS = 1.8
"""An API request is answered within two seconds, whatever is down; the rest is for the answer."""


class DeadlineExceeded(Exception):
    """The time for a request, or for a step of it, is over."""

    def __init__(self) -> None:
        super().__init__("It took too long.")


_ends_at: ContextVar[float | None] = ContextVar("deadline", default=None)


@contextlib.contextmanager
def limited_to(seconds: float) -> Iterator[None]:
    """Do something in so many seconds, or in what is left to the request if that is less.

    :raises DeadlineExceeded: if it takes longer
    """
    seconds = max(0.0, min(seconds, remaining(seconds)))
    token = _ends_at.set(time.monotonic() + seconds)
    try:
        if is_module_patched("socket"):
            with gevent.Timeout(seconds, DeadlineExceeded()):
                yield
        else:
            yield
    finally:
        _ends_at.reset(token)


def remaining(default: float) -> float:
    """Return the seconds that are left, `default` where nothing is limited."""
    ends_at = _ends_at.get()
    return default if ends_at is None else max(0.0, ends_at - time.monotonic())
