"""Threads that end when they are asked to, and that tell when they are stuck."""

import threading
import time

# By thread: since when it has been at what it does now. Nothing for one that waits for work.
_steps: dict[int, float] = {}


def begin_step() -> None:
    """Note that this thread goes on: it begins something that ends within seconds, well or badly.

    A pause with work in hand (for a database that is away) is made of such steps, too.
    """
    _steps[threading.get_ident()] = time.monotonic()


def end_step() -> None:
    """Note that this thread has nothing in hand."""
    _steps.pop(threading.get_ident(), None)


def longest_step_seconds() -> float:
    """Return for how long the slowest thread of the process has been at one step."""
    now = time.monotonic()
    return now - min(list(_steps.values()), default=now)


class StoppableThread(threading.Thread):
    """A daemon thread whose `run` returns soon after `stopping` is set."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.stopping = threading.Event()

    def stop(self) -> None:
        """Ask the thread to end; what it has in hand is finished first, or comes again."""
        self.stopping.set()
