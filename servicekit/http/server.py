"""HTTP/1.1 for the web processes: gunicorn's gevent worker, with requests read by llhttp.

gunicorn keeps the processes: sockets, signals, heartbeat, graceful shutdown. Its reader and writer
of requests, in pure Python, cost as much as everything else that is done for an order, so a
connection is served here; its access log and its hooks for requests are not called.

A request is read whole before a view sees it: a slow client holds a connection and nothing else,
and what no view has read cannot be taken for the beginning of the next request.

Of a process's connections, three quarters at most may have a request answered at a time
(`admission.py`); who gets no place is answered 503. When there is no connection left for the next
client, the one that has been idle for longest ends. A request that has waited until its client gave
up is dropped before anything is done for it.

A process that is asked to end takes no more clients, and answers those that it has: whoever has
connected, and whatever they send until they have been told, in an answer, that it was the last.
"""

import math
import socket
import struct
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache, partial
from http import HTTPStatus
from io import BytesIO
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import gevent
import httptools
import msgspec
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.http.wsgi import base_environ
from gunicorn.workers.ggevent import GeventWorker

from servicekit.http import admission, shutdown
from servicekit.http.deadline import DeadlineExceeded, limited_to

_MAX_TARGET_BYTES = 8 * 1024
_MAX_HEAD_BYTES = 32 * 1024
# Forms of the admin with a file; the API takes far less, and says so itself.
_MAX_BODY_BYTES = 4 * 1024 * 1024
# A thousand connections may send that much at once: what is longer than this waits on disk.
_MAX_MEMORY_BYTES = 64 * 1024
_RECEIVE_BYTES = 64 * 1024

# From its first byte to its last, and for each part of an answer.
_READ_SECONDS = 20
_WRITE_SECONDS = 30

# At the end of a process, a connection on which nothing has come for this long.
_LAST_REQUEST_SECONDS = 1.0

# Who has sent a request and no more to come may have closed only that half of its connection, as
# HTTP allows (RFC 9112, 9.6). Who has after this time not been heard yet is taken to have given up.
_GIVEN_UP_SECONDS = 0.5

# What has to be answered when nothing else can be.
_ALWAYS_ANSWERED = ("/health/", "/metrics")

Headers = list[tuple[str, str]]


class Refused(Exception):
    """What a client has sent is no request that can be answered; its connection ends."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code


class Request:
    """A request: its WSGI environment, and how it wants to be answered."""

    __slots__ = ("_size", "body", "environ", "has_head", "keeps_alive", "target", "version")

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.target = b""
        self.version = ""
        self.has_head = False
        self.keeps_alive = False
        self.body: Any = None
        self._size = 0

    def add(self, data: bytes) -> None:
        """Take a part of the body."""
        self._size += len(data)
        if self.body is None:
            self.body = BytesIO()
        if self._size > _MAX_MEMORY_BYTES and isinstance(self.body, BytesIO):
            in_memory, self.body = self.body, tempfile.TemporaryFile()  # noqa: SIM115 - closed with the request
            self.body.write(in_memory.getvalue())
        self.body.write(data)

    def close_body(self) -> None:
        """Let the application read the body from its beginning."""
        if self.body is None:
            self.body = BytesIO()
        self.body.seek(0)
        self.environ["wsgi.input"] = self.body
        # Of a chunked body, too: who reads it needs to know no difference.
        if self.environ.pop("HTTP_TRANSFER_ENCODING", None) or self._size:
            self.environ["CONTENT_LENGTH"] = str(self._size)


class RequestReader:
    """Makes requests of the bytes of one connection; the methods `on_…` are llhttp's callbacks."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.complete: deque[Request] = deque()
        self.refusal: Refused | None = None
        self._environ = environ
        self._parser = httptools.HttpRequestParser(self)
        self._request: Request | None = None
        self._received = 0

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for a word before it sends the body (RFC 9110, 10.1.1)."""
        request = self._request
        return request is not None and request.has_head and "HTTP_EXPECT" in request.environ

    def feed(self, data: bytes) -> None:
        """Read on; what is complete is in `complete` then, and what is wrong in `refusal`."""
        self._received += len(data)
        while data and self.refusal is None:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade(data[upgrade.args[0] :])
            except httptools.HttpParserError as error:
                self.refusal = Refused(400, "bad_request", f"This is not HTTP/1.1: {error}.")
        if self._request is None:
            self._received = 0
        elif self._received > (_MAX_BODY_BYTES if self._request.has_head else _MAX_HEAD_BYTES):
            self.refusal = _too_large(self._request)

    def _without_upgrade(self, rest: bytes) -> bytes:
        """Go on as if nobody had asked for another protocol, as RFC 9110 (7.8) allows.

        llhttp ends where a request asks for it, before its body: Java's client asks in its first.
        """
        self._parser = httptools.HttpRequestParser(self)
        if self._request is None:
            return rest
        length = self._request.environ.get("CONTENT_LENGTH")
        framing = f"Content-Length: {length}" if length else "Transfer-Encoding: chunked"
        return f"POST / HTTP/1.1\r\n{framing}\r\n\r\n".encode() + rest

    def on_message_begin(self) -> None:
        """Begin a request, unless it is one that goes on after its head."""
        if self._request is None:
            self._request = Request(self._environ.copy())

    def on_url(self, part: bytes) -> None:
        """Take a part of the request's target."""
        request = self._open
        if not request.has_head:
            request.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers are nobody's business."""
        request = self._open
        key = _environ_key(name)
        if request.has_head or key is None:
            return
        text = value.decode("latin-1")
        known = request.environ.get(key)
        if known is not None:
            if key in ("HTTP_HOST", "CONTENT_TYPE"):
                self.refusal = Refused(400, "bad_request", f"{name.decode()} is there twice.")
            # With a space, which no key has in it: two headers must not pass as one.
            text = f"{known}, {text}"
        request.environ[key] = text

    def on_headers_complete(self) -> None:
        """Fill the environment from the head."""
        request = self._open
        if request.has_head:
            return
        request.has_head = True
        request.keeps_alive = self._parser.should_keep_alive()
        request.version = self._parser.get_http_version()
        environ = request.environ
        environ["REQUEST_METHOD"] = self._parser.get_method().decode()
        environ["SERVER_PROTOCOL"] = f"HTTP/{request.version}"
        try:
            path, environ["QUERY_STRING"] = _split(request.target)
        except ValueError:
            self.refusal = Refused(400, "bad_request", "The request target is not valid.")
            return
        environ["RAW_URI"] = request.target.decode("latin-1")
        environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1") if "%" in path else path
        self.refusal = self.refusal or _refusal(request)

    def on_body(self, data: bytes) -> None:
        """Take a part of the body."""
        self._open.add(data)

    def on_message_complete(self) -> None:
        """Hand the request over, unless its body comes after it has asked for an upgrade."""
        request = self._open
        environ = request.environ
        has_body = "HTTP_TRANSFER_ENCODING" in environ or environ.get("CONTENT_LENGTH", "0") != "0"
        if has_body and request.body is None and self._parser.should_upgrade():
            return
        self._request = None
        if self.refusal is None:
            request.close_body()
            self.complete.append(request)

    @property
    def _open(self) -> Request:
        assert self._request is not None  # noqa: S101 - llhttp has told of its beginning
        return self._request


class Answer:
    """Writes what the application answers to one request."""

    def __init__(
        self, send: Callable[[bytes], None], request: Request, is_last: Callable[[], bool]
    ) -> None:
        self._send = send
        self._is_last = is_last
        self._is_head = request.environ["REQUEST_METHOD"] == "HEAD"
        self._is_old = request.version == "1.0"
        self.keeps_alive = request.keeps_alive
        self._head = b""
        self._is_chunked = False

    def start(self, status: str, headers: Headers, _error: Any = None) -> None:
        """Take the status and the headers (PEP 3333, `start_response`)."""
        has_length = status[:3] in ("204", "304") or any(
            name.lower() == "content-length" for name, _ in headers
        )
        framing: Headers = []
        if self._is_last():
            self.keeps_alive = False
        if not has_length:
            if self._is_old:
                self.keeps_alive = False
            else:
                self._is_chunked = True
                framing.append(("Transfer-Encoding", "chunked"))
        if not self.keeps_alive:
            framing.append(("Connection", "close"))
        elif self._is_old:
            framing.append(("Connection", "keep-alive"))
        self._head = _head(status, [*headers, *framing])

    def write(self, body: Iterable[bytes]) -> None:
        """Send the body, part by part, the first together with the head."""
        for part in () if self._is_head else body:
            if part:
                self._flush(b"%x\r\n%b\r\n" % (len(part), part) if self._is_chunked else part)
        self._flush(b"0\r\n\r\n" if self._is_chunked and not self._is_head else b"")

    def _flush(self, part: bytes) -> None:
        data, self._head = self._head + part, b""
        if data:
            self._send(data)


class HttpWorker(GeventWorker):  # type: ignore[misc]  # gunicorn publishes no types
    """gunicorn's `worker_class`: a greenlet per connection, for one request after the other."""

    def init_process(self) -> None:
        """Start to serve."""
        # In its order: first who has been idle for longest. With the time when it will end.
        self._idle: dict[Any, float] = {}
        self._connections = 0
        self._places = admission.open_(max(1, self.worker_connections * 3 // 4))
        self._secure_headers = {
            f"HTTP_{name.replace('-', '_')}": value
            for name, value in self.cfg.secure_scheme_headers.items()
        }
        self._end = Event()
        super().init_process()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """End, but for what is begun; who waits for something is answered now."""
        super().handle_exit(sig, frame)
        shutdown.begin()
        self._end.set()

    def run(self) -> None:
        """Serve until this process is asked to end, and then what is begun."""
        servers = [self._serve(listener) for listener in self.sockets]
        gevent.spawn(self._places.follow_lag)
        while self.alive:
            self.notify()
            self._end.wait(1.0)
        ends_at = time.monotonic() + self.cfg.graceful_timeout
        for server in servers:
            # Closing it would cut off who has connected and was not accepted yet.
            with suppress(OSError):
                while time.monotonic() < ends_at and (waiting := server.do_read()):
                    server.do_handle(*waiting)
            server.close()
        while any(server.pool for server in servers) and time.monotonic() < ends_at:
            self._end_connections(idle_seconds=_LAST_REQUEST_SECONDS)
            self.notify()
            gevent.sleep(0.02)

    def _serve(self, listener: Any) -> StreamServer:
        listener.setblocking(True)
        pool = Pool(self.worker_connections)
        server = StreamServer(
            listener, handle=partial(self.handle, listener.getsockname()), spawn=pool
        )
        if self.cfg.workers > 1:
            # The others want some, too.
            server.max_accept = 1
        server.start()
        return server

    def handle(self, own_address: Any, client: Any, address: Any) -> None:
        """Serve a connection until one of both sides ends it."""
        self._connections += 1
        if self._is_full():
            self._end_connections(at_most=1)
        reader = RequestReader(self._environ(own_address, address))
        is_from_proxy = self._is_proxy(address[0])
        try:
            with limited_to(self.cfg.keepalive) as limit:
                while self._read(client, reader, limit):
                    while reader.complete:
                        request = reader.complete.popleft()
                        if is_from_proxy:
                            self._believe_proxy(request.environ)
                        if not self._admit(client, request, limit):
                            return
                    if reader.refusal is not None:
                        limit.restart(_WRITE_SECONDS)
                        client.sendall(_refused(reader.refusal))
                        return
        except (OSError, DeadlineExceeded) as error:
            self.log.debug("a connection ended: %r", error)
        finally:
            self._connections -= 1
            client.close()

    def _is_full(self) -> bool:
        # A tenth sooner than it is so: of the clients that wait outside, some are let in with each
        # turn of the event loop, not one.
        return bool(self._connections > self.worker_connections * 9 // 10)

    def _admit(self, client: Any, request: Request, limit: limited_to) -> bool:
        """Answer a request when it is its turn, or refuse it; return whether to go on."""
        # The application has limits of its own.
        limit.restart(math.inf)
        path: str = request.environ["PATH_INFO"]
        if path.startswith(_ALWAYS_ANSWERED):
            return self._answer(client, request, limit)
        waited = self._places.enter()
        if waited is None:
            limit.restart(_WRITE_SECONDS)
            client.sendall(_refused(_OVERLOADED))
            return False
        try:
            # Nobody has while there is no lag: they were not let wait.
            if self._places.lags() and _has_given_up(client):
                return False
            request.environ[admission.WAITED] = waited
            return self._answer(client, request, limit)
        finally:
            self._places.leave()

    def _is_last(self) -> bool:
        return not self.alive or self._is_full()

    def _read(self, client: Any, reader: RequestReader, limit: limited_to) -> bool:
        """Read until there is something to answer; return False if there is no more to come."""
        limit.restart(self.cfg.keepalive)
        self._idle[client] = limit.ends_at
        try:
            # Nearly always there is nothing yet: looking first would be a system call for nothing.
            # Whoever ends the connection ends the wait so; what came before that is read.
            with suppress(OSError):
                client._wait(client._read_event)  # noqa: SLF001 - as gevent's `recv` waits
            data = client.recv(_RECEIVE_BYTES)
        finally:
            self._idle.pop(client, None)
        reader.feed(data)
        if not data or reader.complete or reader.refusal:
            return bool(data)
        limit.restart(_READ_SECONDS)
        try:
            return self._read_rest(client, reader)
        except DeadlineExceeded:
            reader.refusal = Refused(408, "request_timeout", "The request took too long to arrive.")
            return True

    def _read_rest(self, client: Any, reader: RequestReader) -> bool:
        was_told = False
        while not (reader.complete or reader.refusal):
            if reader.expects_continue and not was_told:
                client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                was_told = True
            data = client.recv(_RECEIVE_BYTES)
            if not data:
                return False
            reader.feed(data)
        return True

    def _answer(self, client: Any, request: Request, limit: limited_to) -> bool:
        """Answer a request; return whether the connection is kept."""

        def send(data: bytes) -> None:
            # Nearly always it goes at once.
            with suppress(BlockingIOError):
                data = data[client._sock.send(data) :]  # noqa: SLF001 - the socket itself, which does not wait
            if data:
                limit.restart(_WRITE_SECONDS)
                client.sendall(data)
                limit.restart(math.inf)

        answer = Answer(send, request, self._is_last)
        try:
            body = self.wsgi(request.environ, answer.start)
        except Exception:
            # Nothing is sent yet. An application answers its own errors; this is one of its server.
            self.log.exception("a request was not answered")
            send(_refused(Refused(500, "internal_error", "Something went wrong on our side.")))
            return False
        try:
            answer.write(body)
        finally:
            if hasattr(body, "close"):
                body.close()
            request.body.close()
        return answer.keeps_alive

    def _environ(self, own_address: Any, address: Any) -> dict[str, Any]:
        """Return what the environments of all requests of a connection have in common."""
        host, port = own_address[:2]
        environ: dict[str, Any] = {
            **base_environ(self.cfg),
            "wsgi.multithread": True,
            "wsgi.url_scheme": "http",
            "SCRIPT_NAME": "",
            "SERVER_NAME": host,
            "SERVER_PORT": str(port),
            "REMOTE_ADDR": address[0],
            "REMOTE_PORT": str(address[1]),
        }
        # Django would have the server send files its own way.
        del environ["wsgi.file_wrapper"]
        return environ

    def _is_proxy(self, address: str) -> bool:
        allowed = self.cfg.forwarded_allow_ips
        return "*" in allowed or any(
            ip_address(address) in network for network in self.cfg.forwarded_allow_networks()
        )

    def _believe_proxy(self, environ: dict[str, Any]) -> None:
        """Take from a proxy of ours how the client has reached it, and the client's address."""
        if any(environ.get(name) == on for name, on in self._secure_headers.items()):
            environ["wsgi.url_scheme"] = "https"
        if "HTTP_X_FORWARDED_FOR" in environ:
            # From its end: what is before the address that our proxies saw, anybody could write.
            for text in reversed(environ["HTTP_X_FORWARDED_FOR"].split(",")):
                try:
                    is_proxy = self._is_proxy(text.strip())
                except ValueError:
                    break
                environ["REMOTE_ADDR"] = text.strip()
                if not is_proxy:
                    break

    def _end_connections(self, *, idle_seconds: float = 0, at_most: int | None = None) -> None:
        """End connections that have been idle for that long, first those that were for longest."""
        idle_since = time.monotonic() - idle_seconds
        for client, ends_at in list(self._idle.items())[:at_most]:
            if ends_at - self.cfg.keepalive <= idle_since:
                del self._idle[client]
                # Not closed: what has come at this very moment is read and answered.
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RD)


def _has_given_up(client: Any) -> bool:
    """Return whether a client closed its connection while its request waited; costs 0.4 µs."""
    if sys.platform != "linux":
        return False
    # struct tcp_info: its first byte, and tcpi_last_data_recv, in milliseconds.
    state = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    if state != _CLOSE_WAIT:
        return bool(state == _CLOSE)
    told = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 56)
    return bool(struct.unpack_from("=I", told, 52)[0] >= _GIVEN_UP_SECONDS * 1000)


# States of a connection (net/tcp_states.h): reset by the client; and it has no more to send.
_CLOSE, _CLOSE_WAIT = 7, 8

_OVERLOADED = Refused(503, "overloaded", "More is asked than can be answered now. Try again.")


@lru_cache(maxsize=1024)
def _environ_key(name: bytes) -> str | None:
    """Return the WSGI name of a header; None for one that could be taken for another."""
    key = name.decode("latin-1").upper()
    if "_" in key:
        return None
    key = key.replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def _split(target: bytes) -> tuple[str, str]:
    """Return path and query of a request target (RFC 9112, section 3.2).

    :raises ValueError: if it is neither a path nor an absolute URI
    """
    text = target.decode("latin-1")
    if text.startswith("/"):
        path, _, query = text.partition("#")[0].partition("?")
        return path, query
    if text == "*":
        return text, ""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError
    return parts.path or "/", parts.query


def _refusal(request: Request) -> Refused | None:
    """Return what is wrong with a request whose head is read."""
    environ = request.environ
    found: tuple[int, str, str] | None = None
    if request.version not in ("1.0", "1.1"):
        found = 505, "http_version_not_supported", "HTTP/1.1 is spoken here."
    elif len(request.target) > _MAX_TARGET_BYTES:
        found = 414, "uri_too_long", "The request target is too long."
    elif "HTTP_HOST" not in environ and request.version == "1.1":
        found = 400, "bad_request", "The Host header is missing."
    elif environ.get("HTTP_TRANSFER_ENCODING", "chunked").lower() != "chunked":
        found = 501, "not_implemented", "The only transfer coding known here is chunked."
    elif environ.get("HTTP_EXPECT", "100-continue").lower() != "100-continue":
        found = 417, "expectation_failed", "The only expectation met here is 100-continue."
    elif int(environ.get("CONTENT_LENGTH") or 0) > _MAX_BODY_BYTES:
        return _too_large(request)
    return Refused(*found) if found else None


def _too_large(request: Request) -> Refused:
    if request.has_head:
        return Refused(413, "body_too_large", "The body is too large.")
    return Refused(431, "headers_too_large", "The headers are too large.")


def _refused(refusal: Refused) -> bytes:
    # Not above: the master imports this module, and must not import Django before it forks.
    from servicekit.http.problems import (  # noqa: PLC0415
        CONTENT_TYPE,
        RETRY_AFTER_SECONDS,
        problem,
        title_of,
    )

    status = refusal.status
    body = msgspec.json.encode(problem(status, refusal.code, str(refusal)))
    headers = [
        ("Content-Type", CONTENT_TYPE),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append(("Retry-After", RETRY_AFTER_SECONDS))
    return _head(f"{status} {title_of(status)}", headers) + body


def _head(status: str, headers: Headers) -> bytes:
    lines = [f"HTTP/1.1 {status}\r\nDate: {_date(int(time.time()))}\r\n"]
    lines += [f"{name}: {value}\r\n" for name, value in headers]
    return ("".join(lines) + "\r\n").encode("latin-1")


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
