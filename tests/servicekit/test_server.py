"""The server of the web processes, over raw sockets: what clients send, and what attackers do."""

import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent.socket
import pytest

from servicekit.http.deadline import limited_to
from servicekit.http.server import HttpWorker, RequestReader
from tests.servicekit.private_broker import eventually
from tests.servicekit.worker import child_of, running_web

HOST = b"Host: localhost\r\n"


def get(path: bytes, headers: bytes = b"") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\n" + HOST + headers + b"\r\n"


def post(path: bytes) -> bytes:
    """The beginning of a request, whose framing and body follow."""
    return b"POST " + path + b" HTTP/1.1\r\n" + HOST


class Client(contextlib.AbstractContextManager["Client"]):
    """A connection on which a test says what it likes."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def answer(self, method: str = "GET") -> http.client.HTTPResponse:
        """Read one answer, and not a byte more."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self._socket.recv(1)
            if not byte:
                raise ConnectionError(f"closed after {head!r}")
            head += byte
        response = http.client.HTTPResponse(_Head(head, self._socket), method=method)  # type: ignore[arg-type]
        response.begin()
        return response

    def told(self, method: str = "GET") -> dict[str, Any]:
        """Read an answer of the application: what it was asked."""
        told: dict[str, Any] = json.loads(self.answer(method).read())
        return told

    def is_closed(self) -> bool:
        """Whether the server ends the connection."""
        with contextlib.suppress(ConnectionError):
            return self._socket.recv(1) == b""
        return True

    def __exit__(self, *_error: object) -> None:
        self._socket.close()


class _Head:
    """What `HTTPResponse` reads from: a head that is here already, and the socket behind it."""

    def __init__(self, head: bytes, connection: socket.socket) -> None:
        self._head = head
        self._socket = connection

    def makefile(self, _mode: str) -> "_Head":
        return self

    def readline(self, _limit: int = -1) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            line += self.read(1)
        return line

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            size = sys.maxsize
        found, self._head = self._head[:size], self._head[size:]
        while len(found) < size:
            more = self._socket.recv(min(size - len(found), 65536))
            if not more:
                break
            found += more
        return found

    def close(self) -> None:
        pass

    def flush(self) -> None:
        pass


running_echo = partial(running_web, "tests.servicekit.echo:application")


@pytest.fixture(scope="module")
def process(tmp_path_factory) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    with running_echo(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def connect(process) -> Callable[[], Client]:
    return lambda: Client(process[1])


@pytest.fixture
def ask(connect) -> Callable[[bytes], dict[str, Any]]:
    """Return a function that sends a request on a connection of its own, and what it was told."""

    def once(*parts: bytes) -> dict[str, Any]:
        with connect() as client:
            for part in parts:
                client.send(part)
            return client.told()

    return once


class TestRequests:
    def test_are_told_as_they_were_sent(self, ask):
        told = ask(
            b"POST /a%20b/%C3?q=1%2C2#frag HTTP/1.1\r\n" + HOST.lower() + b"X-Two: a\r\n"
            b"Content-Length: 3\r\nX-Two: b\r\nX_Spoofed: 1\r\n\r\nabc"
        )

        assert (told["method"], told["path"], told["query"]) == ("POST", "/a b/\xc3", "q=1%2C2")
        assert (told["body"], told["scheme"]) == ("abc", "http")
        headers = {"HTTP_HOST": "localhost", "HTTP_X_TWO": "a, b", "CONTENT_LENGTH": "3"}
        assert told["headers"] == headers

    def test_of_one_segment_are_answered_one_after_the_other(self, connect):
        with connect() as client:
            client.send(b"".join(get(b"/%d" % number) for number in range(50)))

            assert [client.told()["path"] for _ in range(50)] == [f"/{n}" for n in range(50)]

    def test_in_single_bytes_are_put_together(self, ask):
        sent = post(b"/x") + b"Content-Length: 2\r\n\r\nhi"

        assert ask(*(bytes([byte]) for byte in sent))["body"] == "hi"

    def test_whose_body_nobody_reads_leave_nothing_of_it(self, connect):
        with connect() as client:
            client.send(post(b"/unread") + b"Content-Length: 100000\r\n\r\n")
            client.send(b"x" * 100_000)
            assert client.told()["length"] == 0

            client.send(get(b"/next"))
            assert client.told()["path"] == "/next"

    @pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 3_000_000])
    def test_have_bodies_of_any_length_up_to_the_limit(self, ask, size):
        head = post(b"/") + b"Content-Length: %d\r\n\r\n" % size

        assert ask(head, b"x" * size)["length"] == size

    def test_in_chunks_have_their_length_told(self, ask):
        head = post(b"/") + b"Transfer-Encoding: chunked\r\n\r\n"
        told = ask(head, b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n")

        assert told["body"] == "abcde"
        assert told["headers"] == {"HTTP_HOST": "localhost", "CONTENT_LENGTH": "5"}

    @pytest.mark.parametrize(
        "framing",
        [
            b"Content-Length: 5\r\n\r\nhello",
            b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ],
        ids=["length", "chunks"],
    )
    def test_that_ask_for_http2_have_their_body_and_stay_with_http1(self, connect, framing):
        # As Java's client sends its first request.
        upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
        with connect() as client:
            for _ in range(2):
                client.send(post(b"/j") + upgrade + framing)
                assert client.told()["body"] == "hello"
            client.send(get(b"/g", upgrade))
            assert client.told()["path"] == "/g"

    def test_that_expect_to_be_told_to_go_on_are(self, connect):
        with connect() as client:
            client.send(
                b"PUT / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
            )
            assert client._socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(b"ok")

            assert client.told()["body"] == "ok"

    def test_are_secure_if_a_proxy_on_this_machine_says_so(self, ask):
        assert ask(get(b"/", b"X-Forwarded-Proto: https\r\n"))["scheme"] == "https"

    @pytest.mark.parametrize(
        ("forwarded", "client_address"),
        [
            (b"192.0.2.7", "192.0.2.7"),
            # Whatever the client has written itself stands before what our proxies have seen.
            (b"203.0.113.9, 192.0.2.7, ::1, 127.0.0.1", "192.0.2.7"),
            (b"2001:db8::7", "2001:db8::7"),
            (b"192.0.2.7, <script>, ::1", "::1"),
            (b"", "127.0.0.1"),
        ],
    )
    def test_come_from_where_a_proxy_on_this_machine_says(self, ask, forwarded, client_address):
        told = ask(get(b"/", b"X-Forwarded-For: %b\r\n" % forwarded))

        assert told["client"] == client_address

    def test_of_nobody_we_trust_come_from_where_they_come_from(self, tmp_path):
        headers = b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n"
        with (
            running_echo(tmp_path, FORWARDED_ALLOW_IPS="192.0.2.1") as (_, port),
            Client(port) as client,
        ):
            client.send(get(b"/", headers))
            told = client.told()

        assert (told["client"], told["scheme"]) == ("127.0.0.1", "http")

    def test_with_an_absolute_address_are_for_its_path(self, ask):
        told = ask(get(b"http://localhost:1/p?q"))

        assert (told["path"], told["query"]) == ("/p", "q")


class TestAnswers:
    def test_to_head_have_headers_only(self, connect):
        with connect() as client:
            client.send(b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n" + get(b"/2"))

            assert int(client.answer("HEAD").headers["Content-Length"]) > 0
            assert client.told()["path"] == "/2"

    def test_of_unknown_length_come_in_chunks(self, connect):
        with connect() as client:
            client.send(get(b"/parts"))
            answer = client.answer()

            assert answer.headers["Transfer-Encoding"] == "chunked"
            assert answer.read() == b"one two"
            client.send(get(b"/"))
            assert client.answer().status == 200

    def test_without_content_keep_the_connection(self, connect):
        with connect() as client:
            for _ in range(2):
                client.send(get(b"/empty"))
                assert client.answer().status == 204

    @pytest.mark.parametrize(
        ("path", "header", "is_kept"),
        [
            (b"/", b"", False),
            (b"/", b"Connection: keep-alive\r\n", True),
            # Its end is all that tells where the answer ends.
            (b"/parts", b"Connection: keep-alive\r\n", False),
        ],
    )
    def test_to_http10_end_the_connection_unless_asked_not_to(self, connect, path, header, is_kept):
        with connect() as client:
            client.send(b"GET " + path + b" HTTP/1.0\r\n" + header + b"\r\n")
            answer = client.answer()

            assert "Transfer-Encoding" not in answer.headers
            assert answer.headers["Connection"] == ("keep-alive" if is_kept else "close")
            if not is_kept:
                answer.read()
                assert client.is_closed()

    def test_to_what_the_application_fails_at_are_500(self, connect):
        with connect() as client:
            client.send(get(b"/error"))
            answer = client.answer()

            assert (answer.status, json.loads(answer.read())["code"]) == (500, "internal_error")
            assert client.is_closed()

    def test_end_the_connection_if_asked_to(self, connect):
        with connect() as client:
            client.send(get(b"/", b"Connection: close\r\n"))

            assert client.told()
            assert client.is_closed()


REFUSED = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    "an unknown method": (b"FETCH / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "another version": (b"GET / HTTP/3.0\r\n" + HOST + b"\r\n", 400),
    "a version that llhttp knows": (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\n" + HOST * 2 + b"\r\n", 400),
    "a tunnel": (b"CONNECT a:80 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "another scheme": (b"GET ftp://localhost/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a long target": (b"GET /%b HTTP/1.1\r\n" % (b"x" * 9000) + HOST + b"\r\n", 414),
    "long headers": (b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000, 431),
    "many headers": (b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 8000, 431),
    "a folded header": (get(b"/", b"X: a\r\n b\r\n"), 400),
    "a null byte": (get(b"/", b"X: a\x00b\r\n"), 400),
    "a space before a colon": (b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
    "lines without CR": (b"GET / HTTP/1.1\nHost: localhost\n\n", 400),
    "two lengths": (post(b"/") + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    "a length and chunks": (
        post(b"/") + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    "a negative length": (post(b"/") + b"Content-Length: -1\r\n\r\n", 400),
    "a length beyond the limit": (post(b"/") + b"Content-Length: 5000000\r\n\r\n", 413),
    "an unknown transfer coding": (
        post(b"/") + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    "an unknown expectation": (post(b"/") + b"Expect: a miracle\r\nContent-Length: 1\r\n\r\n", 417),
    "a chunk of nonsense": (post(b"/") + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
    "an endless chunk size": (post(b"/") + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 40, 400),
}


class TestRefusals:
    @pytest.mark.parametrize(("sent", "status"), REFUSED.values(), ids=REFUSED.keys())
    def test_are_problems_and_end_the_connection(self, connect, sent, status):
        with connect() as client:
            client.send(sent)
            answer = client.answer()

            assert answer.status == status
            assert answer.headers["Content-Type"] == "application/problem+json"
            document = json.loads(answer.read())
            assert document["status"] == status
            assert document["code"]
            assert client.is_closed()

    def test_come_after_the_answers_to_what_was_right(self, connect):
        with connect() as client:
            client.send(get(b"/1") + b"\x00nonsense")

            assert client.told()["path"] == "/1"
            assert client.answer().status == 400

    @pytest.mark.parametrize(
        "endless",
        [
            b"Transfer-Encoding: chunked\r\n\r\n5;" + b"x" * 1000,
            b"Transfer-Encoding: chunked\r\n\r\n",
        ],
        ids=["chunk extension", "chunks"],
    )
    def test_end_what_would_never_end(self, connect, endless):
        part = b"x" * 65536 if endless.endswith(b"x") else b"400\r\n" + b"x" * 1024 + b"\r\n"
        with connect() as client:
            client.send(post(b"/") + endless)
            sent = 0
            with contextlib.suppress(ConnectionError):
                while sent < 50_000_000:
                    client.send(part)
                    sent += len(part)

        # What the buffers of the system take beside the limit of 4 MiB depends on the system.
        assert sent < 20_000_000

    @pytest.mark.parametrize(
        "half", [b"GET /", post(b"/") + b"Content-Length: 3\r\n\r\nab"], ids=["head", "body"]
    )
    def test_end_what_takes_too_long(self, connect, half):
        with connect() as client:
            client.send(half)

            assert client.answer().status == 408


class TestMoreThanCanBeServed:
    @pytest.fixture
    def small(self, tmp_path) -> Iterator[Callable[[], Client]]:
        """Connect to a server that has eight connections."""
        with running_echo(tmp_path, WEB_CONNECTIONS="8") as (_, port):
            yield lambda: Client(port)

    def test_ends_the_connection_that_was_idle_for_longest(self, small):
        with contextlib.ExitStack() as stack:
            clients = []
            for number in range(12):
                clients.append(stack.enter_context(small()))
                clients[-1].send(get(b"/%d" % number))
                assert clients[-1].told()["path"] == f"/{number}"

            assert clients[0].is_closed()

    def test_is_refused_at_once_and_whoever_is_in_is_answered(self, small):
        with contextlib.ExitStack() as stack:
            taken = [stack.enter_context(small()) for _ in range(6)]
            for client in taken:
                client.send(get(b"/held"))

            def asked(path: bytes) -> list[str]:
                with small() as asking:
                    asking.send(get(b"/health/%b" % path))
                    return asking.told()["asked"]

            eventually(lambda: asked(b"live").count("/held") == len(taken))
            refused = stack.enter_context(small())
            refused.send(post(b"/") + b"Content-Length: 2\r\n\r\nhi")

            answer = refused.answer()
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
            assert json.loads(answer.read())["code"] == "overloaded"
            assert asked(b"go")[-1] == "/health/go"
            assert {client.answer().status for client in taken} == {200}


class TestAClientThatGivesUp:
    @pytest.fixture
    def stopped(self, process) -> Iterator[tuple[Callable[[], Client], Callable[[], None]]]:
        """Return how to connect to a server that stands still, and how to let it go on."""
        master, port = process
        worker = child_of(master)
        os.kill(worker, signal.SIGSTOP)
        yield lambda: Client(port), lambda: os.kill(worker, signal.SIGCONT)
        os.kill(worker, signal.SIGCONT)

    @pytest.mark.parametrize("how", ["closes", "resets"])
    def test_before_its_request_is_taken_up_has_nothing_done_for_it(self, stopped, how):
        connect, go_on = stopped
        path = f"/{how}"
        with connect() as patient, connect() as hasty:
            for client in (hasty, patient):
                client.send(post(path.encode()) + b"Content-Length: 2\r\n\r\nhi")
            if how == "resets":
                lingers_not = struct.pack("ii", 1, 0)
                hasty._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingers_not)
            time.sleep(1)
            hasty._socket.close()
            go_on()

            assert patient.told()["body"] == "hi"
        with connect() as asking:
            asking.send(get(b"/"))
            assert asking.told()["asked"].count(path) == 1

    def test_is_not_one_that_has_no_more_to_ask(self, connect):
        with connect() as client:
            client.send(get(b"/1") + get(b"/2"))
            client._socket.shutdown(socket.SHUT_WR)

            assert [client.told()["path"] for _ in range(2)] == ["/1", "/2"]
            assert client.is_closed()


class TestTheEnd:
    def test_is_told_in_an_answer_to_whoever_still_asks(self, tmp_path):
        with running_echo(tmp_path) as (process, port):
            with Client(port) as idle, Client(port) as busy, Client(port) as regular:
                for client in (idle, regular):
                    client.send(get(b"/"))
                    client.answer().read()
                busy.send(get(b"/slow"))
                time.sleep(0.2)
                process.send_signal(signal.SIGTERM)
                eventually(lambda: refuses(port))
                regular.send(get(b"/"))

                for client in (regular, busy):
                    answer = client.answer()
                    assert (answer.status, answer.headers["Connection"]) == (200, "close")
                assert idle.is_closed()
            assert process.wait(10) == 0

    def test_comes_after_a_request_that_was_there_before_it(self):
        worker = HttpWorker.__new__(HttpWorker)
        worker._idle, worker.cfg = {}, SimpleNamespace(keepalive=75)
        client, server = gevent.socket.socketpair()
        reader = RequestReader({})
        with limited_to(75) as limit, client, server:
            reading = gevent.spawn(worker._read, server, reader, limit)
            gevent.sleep(0)
            client.sendall(get(b"/"))
            worker._end_connections()

            assert reading.get(timeout=60)
            assert len(reader.complete) == 1

    def test_comes_after_who_has_connected_before_it(self, tmp_path):
        with running_echo(tmp_path) as (process, port):
            worker = child_of(process)
            os.kill(worker, signal.SIGSTOP)
            with contextlib.ExitStack() as stack:
                clients = [stack.enter_context(Client(port)) for _ in range(150)]
                for client in clients:
                    client.send(get(b"/"))
                process.send_signal(signal.SIGTERM)
                time.sleep(0.5)
                os.kill(worker, signal.SIGCONT)

                assert {client.answer().status for client in clients} == {200}

    def test_waits_for_the_successor(self, tmp_path):
        with running_echo(tmp_path, ECHO_STARTS_SECONDS="4") as (process, port):
            before = child_of(process)
            process.send_signal(signal.SIGHUP)
            answered_by = []

            def is_another() -> bool:
                with Client(port) as client:
                    client.send(get(b"/"))
                    started = time.monotonic()
                    answered_by.append(client.told()["pid"])
                    # Nobody has waited until the new one was there.
                    assert time.monotonic() - started < 4
                return answered_by[-1] != before

            eventually(is_another, within_seconds=60)
            assert answered_by[0] == before
            eventually(lambda: not Path(f"/proc/{before}").exists())


def refuses(port: int) -> bool:
    try:
        Client(port).__exit__()
    except ConnectionRefusedError:
        return True
    return False
