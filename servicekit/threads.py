"""Threads that end when they are asked to."""

import threading


class StoppableThread(threading.Thread):
    """A daemon thread whose `run` returns soon after `stopping` is set."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.stopping = threading.Event()

    def stop(self) -> None:
        """Ask the thread to end; what it has in hand is finished first, or comes again."""
        self.stopping.set()
