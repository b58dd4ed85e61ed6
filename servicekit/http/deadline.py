"""The time that a request has: set when it comes in, spent by every step of it.

Under gevent, whatever a step waits for ends when its time is over: a timer of the process looks
every few milliseconds for greenlets that are late. Elsewhere (in tests, in `manage.py`) the steps
bound themselves by what is `remaining`.
"""

import time
from contextvars import ContextVar, Token
from functools import cache
from typing import Any

import gevent
from gevent.monkey import is_module_patched

REQUEST_SECONDS = 1.8
"""An API request is answered within two seconds, whatever is down; the rest is for the answer."""

# One timer for all: a timer for each request costs more than reading its body.
_LOOK_EVERY_SECONDS = 0.02


class DeadlineExceeded(Exception):
    """The time for a request, or for a step of it, is over."""

    def __init__(self) -> None:
        super().__init__("it took too long")


class limited_to:  # noqa: N801 - reads as what it does: `with limited_to(0.5):`
    """Do something in so many seconds, or in what is left to the request if that is less.

    :raises DeadlineExceeded: inside, if it takes longer
    """

    __slots__ = ("_greenlet", "_token", "ends_at")

    def __init__(self, seconds: float) -> None:
        self.ends_at = time.monotonic() + seconds

    def __enter__(self) -> "limited_to":
        outer = _limit.get()
        if outer is not None and outer.ends_at < self.ends_at:
            self.ends_at = outer.ends_at
        self._token: Token[limited_to | None] = _limit.set(self)
        self._greenlet: Any = gevent.getcurrent()
        if is_enforced():
            _watch(self)
        return self

    def restart(self, seconds: float) -> None:
        """Begin anew, with so many seconds: for what does one thing after the other."""
        self.ends_at = time.monotonic() + seconds
        if is_enforced():
            _running.add(self)

    def __exit__(self, *_error: object) -> None:
        _running.discard(self)
        _limit.reset(self._token)

    def end_if_late(self, now: float) -> None:
        """Raise `DeadlineExceeded` where the greenlet waits; called by the timer."""
        if self.ends_at <= now and self in _running:
            # Once: what cleans up afterwards may wait, too.
            _running.discard(self)
            self._greenlet.throw(DeadlineExceeded())


class suspended:  # noqa: N801 - as above
    """Do not count the time that a client has asked us to wait."""

    def __enter__(self) -> None:
        self._limit = _limit.get()
        self._started = time.monotonic()
        self._is_watched = self._limit in _running
        if self._limit is not None:
            _running.discard(self._limit)

    def __exit__(self, *_error: object) -> None:
        if self._limit is not None:
            self._limit.ends_at += time.monotonic() - self._started
            if self._is_watched:
                _running.add(self._limit)


_limit: ContextVar[limited_to | None] = ContextVar("deadline", default=None)
_running: set[limited_to | None] = set()
_timers: list[Any] = []


@cache
def is_enforced() -> bool:
    """Return whether waiting ends by itself when the time is over: under gevent."""
    return bool(is_module_patched("socket"))


def remaining(default: float) -> float:
    """Return the seconds that are left, `default` at most."""
    limit = _limit.get()
    return default if limit is None else max(0.0, min(default, limit.ends_at - time.monotonic()))


def _watch(limit: limited_to) -> None:
    if not _timers:
        # Made when first used: after the fork that makes a web worker.
        timer = gevent.get_hub().loop.timer(_LOOK_EVERY_SECONDS, _LOOK_EVERY_SECONDS)
        timer.start(_end_those_who_are_late)
        _timers.append(timer)
    _running.add(limit)


def _end_those_who_are_late() -> None:
    now = time.monotonic()
    for limit in list(_running):
        if limit is not None:
            limit.end_if_late(now)
