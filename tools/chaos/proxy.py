"""A TCP proxy that breaks a connection on purpose, to the frame.

    with Proxy(stack.environment["BROKER_URL"]) as proxy:
        stack.set_environment("orders-worker", BROKER_URL=proxy.url)

        proxy.cut()                # every connection, now; new ones are welcome
        proxy.refuse()             # nobody listens any more; those that are open stay open
        proxy.blackhole()          # whatever is sent, on old connections and new, goes nowhere
        proxy.delay(0.2)           # every chunk, in both directions, comes this many seconds later
        fault = proxy.arm(Fault("cut within", 3, "server"))  # half of what the server sends third
        fault.reached.wait(5)
        proxy.heal()               # listen, hold nothing, delay nothing, forget the fault

The scheme of the URL (`amqp`, `postgresql`, `redis`) says what a frame is; of any other scheme, it
is whatever one `recv` returned. Frames are counted from arming, in one direction, over all
connections together. What was held is delivered when it is released, as TCP would after an outage.
"""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Self
from urllib.parse import urlsplit

Side = Literal["client", "server"]
Action = Literal["cut before", "cut within", "cut after", "hold", "repeat"]

_CHUNK = 64 * 1024
_DEFAULT_PORTS = {"amqp": 5672, "postgresql": 5432, "postgres": 5432, "redis": 6379, "http": 80}


@dataclass(eq=False)
class Fault:
    """What happens at the N-th frame from one side, once.

    `cut` ends the connection, before, in the middle of or after the frame. `hold` keeps it, and
    what comes behind it on that connection, for some seconds, or until the fault is replaced.
    `repeat` sends it twice, and a message of AMQP as a whole. The publisher of a repeated message
    gets one confirm too many.
    """

    action: Action
    frame: int
    side: Side
    seconds: float | None = None
    seen: int = 0
    """How many frames there were since arming."""
    at: str = ""
    """The beginning of the frame, for whoever reads of it."""
    reached: threading.Event = field(default_factory=threading.Event)


class Proxy:
    """Listens on a free port of 127.0.0.1 and forwards to the server of a URL."""

    def __init__(self, upstream_url: str) -> None:
        parts = urlsplit(upstream_url)
        self._upstream = (parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme])
        self._frames = _FRAMES.get(parts.scheme, Frames)
        self._changed = threading.Condition()
        self._links: set[_Link] = set()
        self._listener: socket.socket | None = None
        self._delay_seconds = 0.0
        self._is_blackhole = False
        self._fault: Fault | None = None
        self.port = 0
        self._listen()
        credentials, at, _ = parts.netloc.rpartition("@")
        self.url = parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self.port}").geturl()
        """The URL of the server by way of this proxy."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def cut(self) -> None:
        """End every connection that there is."""
        for link in list(self._links):
            self._cut(link)

    def refuse(self) -> None:
        """Refuse new connections; end with `heal`."""
        if self._listener is not None:
            # Not only closed: that would leave the thread in `accept`, and the port open.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def blackhole(self) -> None:
        """Let nothing pass from now on, on any connection; end with `heal`."""
        with self._changed:
            self._is_blackhole = True

    def delay(self, seconds: float) -> None:
        """Let everything pass later by some seconds."""
        self._delay_seconds = seconds

    def arm(self, fault: Fault) -> Fault:
        """Count frames from now on, and have this fault at its frame instead of any other."""
        with self._changed:
            self._fault = fault
            self._changed.notify_all()
        return fault

    def heal(self) -> None:
        """Forward everything at once, also what was held, and listen."""
        with self._changed:
            self._fault, self._delay_seconds, self._is_blackhole = None, 0.0, False
            self._changed.notify_all()
        if self._listener is None:
            self._listen()

    def close(self) -> None:
        """End for good."""
        self.refuse()
        self.cut()

    # How it is done

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
        self.port = self._listener.getsockname()[1]
        _start(self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            # In a thread of its own: one connection must not wait for the upstream of another.
            _start(self._connect, near)

    def _connect(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError), socket.create_connection(self._upstream) as far:
            link = _Link(near, far, self._frames())
            self._links.add(link)
            backward = _start(self._forward, link, "server", far, near)
            self._forward(link, "client", near, far)
            backward.join()
            self._links.discard(link)

    def _forward(
        self, link: "_Link", side: Side, source: socket.socket, target: socket.socket
    ) -> None:
        rest = b""
        try:
            while chunk := source.recv(_CHUNK):
                time.sleep(self._delay_seconds)
                with self._changed:
                    self._changed.wait_for(lambda: link.is_cut or not self._is_blackhole)
                rest = self._forward_frames(link, side, rest + chunk, target)
            target.sendall(rest)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            self._cut(link)

    def _forward_frames(
        self, link: "_Link", side: Side, data: bytes, target: socket.socket
    ) -> bytes:
        """Send the frames in `data`, and return what is the beginning of the next one."""
        start = sent = 0
        while (end := link.frames.end(data, start, side)) is not None:
            fault = self._fault
            if fault is not None and fault.side == side:
                with self._changed:
                    is_due = fault.seen + 1 == fault.frame
                    if is_due and fault.action == "repeat":
                        whole = link.frames.end_of_message(data, start, end)
                        if whole is None:
                            break
                        end = whole
                    fault.seen += 1
                if is_due:
                    fault.at = repr(data[start:end][:48])
                    fault.reached.set()
                    target.sendall(data[sent:start])
                    self._break(link, fault, data[start:end], target)
                    sent = start
            start = end
        target.sendall(data[sent:start])
        return data[start:]

    def _break(self, link: "_Link", fault: Fault, frame: bytes, target: socket.socket) -> None:
        """Do what the fault says, before the frame is sent."""
        if fault.action == "hold":
            with self._changed:
                self._changed.wait_for(
                    lambda: link.is_cut or self._fault is not fault, timeout=fault.seconds
                )
        elif fault.action == "repeat":
            target.sendall(frame)
        else:
            passing = {"cut before": 0, "cut within": len(frame) // 2, "cut after": len(frame)}
            target.sendall(frame[: passing[fault.action]])
            raise ConnectionError(fault.action)

    def _cut(self, link: "_Link") -> None:
        link.cut()
        with self._changed:
            self._changed.notify_all()


class _Link:
    """One connection of a client, and its other half to the server."""

    def __init__(self, near: socket.socket, far: socket.socket, frames: "Frames") -> None:
        self.frames = frames
        self.is_cut = False
        self._sockets = (near, far)
        for each in self._sockets:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def cut(self) -> None:
        """End both halves; each thread that uses them finds out."""
        self.is_cut = True
        for each in self._sockets:
            # Shut down first, or a thread that waits in `recv` would wait on.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class Frames:
    """Where a frame ends, for one connection: here, of a protocol that we do not know."""

    def end(self, data: bytes, start: int, side: Side) -> int | None:  # noqa: ARG002 - of the others
        """Return the end of the frame that begins at `start`, or None while it is not all there."""
        return len(data) if start < len(data) else None

    def end_of_message(self, data: bytes, start: int, end: int) -> int | None:  # noqa: ARG002 - of AMQP
        """Return the end of all that belongs to a frame, or None while it is not all there."""
        return end


class AmqpFrames(Frames):
    """AMQP 0-9-1: a header of eight bytes, then type, channel, size, payload and an end byte."""

    _CARRY_CONTENT = frozenset({(60, 40), (60, 50), (60, 60), (60, 71)})  # publish, return, deliver

    def end(self, data: bytes, start: int, side: Side) -> int | None:  # noqa: ARG002 - both send the same
        """Return the end of the header or of one frame."""
        if data.startswith(b"AMQP", start):
            end = start + 8
        elif len(data) < start + 7:
            return None
        else:
            (size,) = struct.unpack_from(">I", data, start + 3)
            end = start + 7 + size + 1
        return end if end <= len(data) else None

    def end_of_message(self, data: bytes, start: int, end: int) -> int | None:
        """Return the end of the body that follows a method, as long as no frame comes between."""
        is_method = data[start] == 1
        if not is_method or struct.unpack_from(">HH", data, start + 7) not in self._CARRY_CONTENT:
            return end
        header_end = self.end(data, end, "client")
        if header_end is None:
            return None
        (left,) = struct.unpack_from(">Q", data, end + 11)
        end = header_end
        while left > 0:
            body_end = self.end(data, end, "client")
            if body_end is None:
                return None
            left -= body_end - end - 8
            end = body_end
        return end


class PostgresFrames(Frames):
    """PostgreSQL 3.0: a type byte and a length, but for the first messages."""

    _ENCRYPTION = (80877103, 80877104)  # SSLRequest and GSSENCRequest

    def __init__(self) -> None:
        self._is_asked_for_encryption = False
        self._is_encrypted = False

    def end(self, data: bytes, start: int, side: Side) -> int | None:
        """Return the end of one message."""
        if self._is_encrypted:
            return super().end(data, start, side)
        if side == "server" and self._is_asked_for_encryption and start < len(data):
            # One byte, and no length.
            self._is_asked_for_encryption = False
            self._is_encrypted = data[start : start + 1] != b"N"
            return start + 1
        # No type is 0, and no first message is so long that its length begins with another byte.
        is_first = data.startswith(b"\0", start)
        if len(data) < start + 8 and (is_first or len(data) < start + 5):
            return None
        (length,) = struct.unpack_from(">I", data, start + (0 if is_first else 1))
        end = start + int(length) + (0 if is_first else 1)
        if end > len(data):
            return None
        if is_first and struct.unpack_from(">I", data, start + 4)[0] in self._ENCRYPTION:
            self._is_asked_for_encryption = True
        return end


class RedisFrames(Frames):
    """RESP 2 and 3: one command, or one reply with all that is nested in it."""

    def end(self, data: bytes, start: int, side: Side) -> int | None:  # noqa: ARG002 - both send the same
        """Return the end of one value."""
        values = 1
        while values:
            end_of_line = data.find(b"\r\n", start)
            if end_of_line < 0:
                return None
            kind, count = data[start : start + 1], data[start + 1 : end_of_line]
            start = end_of_line + 2
            values -= 1
            if kind and kind in b"*~>%|" and int(count) > 0:
                # An attribute (`|`) comes before the value that it is about.
                values += int(count) * (2 if kind in b"%|" else 1) + (kind == b"|")
            elif kind and kind in b"$!=" and int(count) >= 0:
                start += int(count) + 2
        return start if start <= len(data) else None


_FRAMES: dict[str, type[Frames]] = {
    "amqp": AmqpFrames,
    "postgresql": PostgresFrames,
    "postgres": PostgresFrames,
    "redis": RedisFrames,
}


def _start(function: Callable[..., object], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread
