"""The time that a request has: set when it comes in, spent by every step of it.

Under gevent a timer ends whatever a step waits for. Elsewhere (in tests, in `manage.py`) the steps
bound themselves by what is `remaining`.
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
        super().__init__("it took too long")


class _Limit:
    """A moment, and the timer that goes off then."""

    def __init__(self, seconds: float) -> None:
        self.start(seconds)

    def start(self, seconds: float) -> None:
        self.ends_at = time.monotonic() + seconds
        self._timer: gevent.Timeout | None = None
        if is_module_patched("socket"):
            self._timer = gevent.Timeout.start_new(seconds, DeadlineExceeded())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.close()


_limit: ContextVar[_Limit | None] = ContextVar("deadline", default=None)


@contextlib.contextmanager
def limited_to(seconds: float) -> Iterator[None]:
    """Do something in so many seconds, or in what is left to the request if that is less.

    :raises DeadlineExceeded: if it takes longer
    """
    limit = _Limit(min(seconds, remaining(seconds)))
    token = _limit.set(limit)
    try:
        yield
    finally:
        limit.stop()
        _limit.reset(token)


@contextlib.contextmanager
def suspended() -> Iterator[None]:
    """Do not count the time that a client has asked us to wait."""
    limit = _limit.get()
    if limit is None:
        yield
        return
    left = remaining(0.0)
    limit.stop()
    try:
        yield
    finally:
        limit.start(left)


def remaining(default: float) -> float:
    """Return the seconds that are left, `default` where nothing is limited."""
    limit = _limit.get()
    return default if limit is None else max(0.0, limit.ends_at - time.monotonic())
