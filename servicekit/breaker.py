"""A circuit breaker for calls that many threads make at once."""

import threading
import time


class Breaker:
    """After a failure, spares everybody the waiting for a moment, then lets one caller try."""

    # Not pybreaker: it holds its lock during the call, which would let the threads of a web
    # process reach the other side one at a time only (docs/decisions/0004).

    def __init__(self, *, pause_seconds: float) -> None:
        self._pause_seconds = pause_seconds
        self._closed_until = 0.0
        self._lock = threading.Lock()

    def admits(self) -> bool:
        """Return whether to call now."""
        if self._closed_until == 0.0:
            return True
        with self._lock:
            now = time.monotonic()
            if now < self._closed_until:
                return False
            # This caller tries for all; the others wait for the outcome in the next pause.
            self._closed_until = now + self._pause_seconds
            return True

    def failed(self) -> bool:
        """Note a failure; return whether it is the first of a series."""
        first = self._closed_until == 0.0
        self._closed_until = time.monotonic() + self._pause_seconds
        return first

    def succeeded(self) -> bool:
        """Note a success; return whether it ends a series of failures."""
        if self._closed_until == 0.0:
            return False
        self._closed_until = 0.0
        return True
