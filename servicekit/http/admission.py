"""How many requests a web process answers at a time, so that what it takes is answered in time.

At most a given number, and fewer while the process is late with what it does: the number follows
the lag of its event loop, as TCP's window follows lost packets (additive increase, multiplicative
decrease). Waiting for a server that is away makes nothing late, and takes nothing from others.

One more request waits a moment for a place. The newest gets it first: who has waited for longest is
the likeliest to have given up. Holding the others for that moment bounds what refusing them costs,
too: without it, answering them all 503 would leave no time for those who are to be served.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import gevent
from gevent.event import Event

WAITED = "servicekit.waited_seconds"
"""Where the WSGI environment says how long a request has waited for its place."""

_WAIT_SECONDS = 0.5
# A request comes to its turn a few times before it is answered, and waits so long each time.
_LAG_SECONDS = 0.15
_LOOK_EVERY_SECONDS = 0.05
# What had to wait meanwhile has come to its turn by then.
_AFTERWARDS_SECONDS = 1.0
# With so many at a time a process does all that it can do, however late it is.
_FEWEST = 64
# With each look, so many more are tried.
_MORE = 4


class Admission:
    """The places of a web process; all its methods are for greenlets of one thread."""

    def __init__(self, most: int) -> None:
        self.taken = 0
        self._limit = self._most = most
        self._waiting: list[Event] = []
        self._looks_at = self._late_until = 0.0

    def enter(self) -> float | None:
        """Take a place, now or in a moment; return the seconds waited, or None if in vain."""
        if self.taken < self._limit:
            self.taken += 1
            return 0.0
        began = time.monotonic()
        turn = Event()
        self._waiting.append(turn)
        if turn.wait(_WAIT_SECONDS):
            return time.monotonic() - began
        self._waiting.remove(turn)
        return None

    def leave(self) -> None:
        """Give a place back."""
        self.taken -= 1
        self._hand_over()

    def follow_lag(self) -> None:
        """Measure the lag and adapt to it, for ever."""
        while True:
            self._looks_at = time.monotonic() + _LOOK_EVERY_SECONDS
            gevent.sleep(_LOOK_EVERY_SECONDS)
            # The timer comes before everybody who is ready; this comes after them.
            gevent.sleep(0)
            is_late = self._is_late(now := time.monotonic())
            if is_late:
                self._late_until = now + _AFTERWARDS_SECONDS
            self.adapt(is_late=is_late)

    def lags(self) -> bool:
        """Return whether the process is late with what it does, or was a moment ago."""
        now = time.monotonic()
        return now < self._late_until or self._is_late(now)

    def _is_late(self, now: float) -> bool:
        return now - self._looks_at > _LAG_SECONDS

    def adapt(self, *, is_late: bool) -> None:
        """Answer fewer at a time from now on, or a few more."""
        # With few requests on their way, something else was slow.
        if is_late and self.taken > self._limit // 2:
            self._limit = max(min(_FEWEST, self._most), self._limit * 9 // 10)
        else:
            self._limit = min(self._most, self._limit + _MORE)
        self._hand_over()

    def _hand_over(self) -> None:
        while self._waiting and self.taken < self._limit:
            self.taken += 1
            self._waiting.pop().set()


_opened: list[Admission] = []


def open_(most: int) -> Admission:
    """Return the places of this process, made when it begins to serve."""
    _opened[:] = [Admission(most)]
    return _opened[0]


@contextmanager
def aside() -> Iterator[None]:
    """Let others have the place of this request while it waits for what costs nothing."""
    for places in _opened:
        places.leave()
    try:
        yield
    finally:
        for places in _opened:
            places.taken += 1
