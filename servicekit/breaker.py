"""A circuit breaker for calls that many threads make at once."""

import logging
import threading
import time
import weakref
from collections.abc import Callable
from typing import TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


_all: "weakref.WeakSet[Breaker]" = weakref.WeakSet()


def open_breakers() -> list[str]:
    """Return what this process is going on without at the moment."""
    return sorted({breaker.name for breaker in _all if breaker.is_open})


class CircuitOpen(Exception):
    """The call was not made, because one like it failed a moment ago."""


class Breaker:
    """After a failure, spares everybody the waiting for a moment, then lets one caller try."""

    # Not pybreaker: it holds its lock during the call, which would let the threads of a web
    # process reach the other side one at a time only (docs/decisions/0004).

    def __init__(self, name: str, *, pause_seconds: float) -> None:
        self.name = name
        self._pause_seconds = pause_seconds
        self._open_until = 0.0
        self._lock = threading.Lock()
        _all.add(self)

    @property
    def is_open(self) -> bool:
        """Whether callers are spared: something has failed a moment ago."""
        return time.monotonic() < self._open_until

    def call(
        self,
        function: Callable[[], T],
        *,
        failures: tuple[type[Exception], ...],
        force: bool = False,
    ) -> T:
        """Return what `function` returns; the first of a series of failures is logged, and its end.

        Who `force` is never spared, because there is no other way.

        :raises CircuitOpen: if it is not called
        :raises: what it raises; one of `failures` spares the next callers
        """
        if not (force or self._admits()):
            raise CircuitOpen(f"{self.name} was away a moment ago")
        try:
            answer = function()
        except failures as error:
            if self._open_until == 0.0:
                logger.warning("%s is away, going on without it: %s", self.name, error)
            self._open_until = time.monotonic() + self._pause_seconds
            raise
        if self._open_until != 0.0:
            self._open_until = 0.0
            logger.warning("%s is back", self.name)
        return answer

    def _admits(self) -> bool:
        if self._open_until == 0.0:
            return True
        with self._lock:
            now = time.monotonic()
            if now < self._open_until:
                return False
            # This caller tries for all; the others wait for the outcome in the next pause.
            self._open_until = now + self._pause_seconds
            return True
