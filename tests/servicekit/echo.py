"""A WSGI application that tells what it was asked, for the tests of the server."""

import json
import os
import threading
import time
from collections.abc import Iterable
from typing import Any

from servicekit.http import server

# A test does not wait as long as a slow client is waited for.
server._READ_SECONDS = 1

# Applications take their time.
time.sleep(float(os.environ.get("ECHO_STARTS_SECONDS", "0")))

# Until somebody says so, what is held waits.
go = threading.Event()

# The paths that were asked for, in their order.
asked: list[str] = []


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer with what was asked; some paths behave in their own way."""
    path = environ["PATH_INFO"]
    asked.append(path)
    if path == "/parts":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([b"one ", b"", b"two"])
    if path == "/empty":
        start_response("204 No Content", [])
        return []
    if path == "/error":
        raise RuntimeError("on purpose")
    if path == "/health/go":
        go.set()
    if path == "/held":
        go.wait(60)
    if path == "/slow":
        time.sleep(0.5)
    body = b"" if path == "/unread" else environ["wsgi.input"].read()
    told = {
        "method": environ["REQUEST_METHOD"],
        "path": path,
        "pid": os.getpid(),
        "asked": asked[-100:],
        "query": environ["QUERY_STRING"],
        "scheme": environ["wsgi.url_scheme"],
        "client": environ["REMOTE_ADDR"],
        "length": len(body),
        "body": body[:100].decode("latin-1"),
        "headers": {
            name: value
            for name, value in environ.items()
            if name.startswith("HTTP_") or name == "CONTENT_LENGTH"
        },
    }
    answer = json.dumps(told).encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
