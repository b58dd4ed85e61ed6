"""Bodies that nobody asked for: of requests that no view read, and of answers to HEAD."""

from collections.abc import Callable, Iterable
from typing import Any

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

# What is longer, the server reads on its own, or closes the connection.
_MAX_BYTES = 1024 * 1024


class BodyReader:
    """A WSGI application that reads a body to its end before it answers.

    A path or a method that there is not is answered without its body being read. The client then
    sends its next request while the server still looks for the rest of this one, and gunicorn may
    swallow the beginning of it: the connection, which is kept, would hang.
    """

    def __init__(self, application: Application) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer a request."""
        answer = self._application(environ, start_response)
        if environ.get("CONTENT_LENGTH") or "HTTP_TRANSFER_ENCODING" in environ:
            # Nothing is left when a view has read it: one call that returns at once.
            environ["wsgi.input"].read(_MAX_BYTES)
        if environ["REQUEST_METHOD"] == "HEAD":
            # The headers, its length included, are those of a GET; the server sends no more.
            close = getattr(answer, "close", None)
            if close is not None:
                close()
            return []
        return answer
