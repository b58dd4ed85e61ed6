"""The end of a web process: what waits in it is told, so that nobody is cut off in mid-answer."""

from collections.abc import Callable

_callbacks: list[Callable[[], None]] = []


def on_shutdown(callback: Callable[[], None]) -> None:
    """Have `callback` called, in a signal handler, when this process is asked to end."""
    _callbacks.append(callback)


def begin() -> None:
    """Tell everybody; the server calls it before it waits for its last requests."""
    for callback in _callbacks:
        callback()
