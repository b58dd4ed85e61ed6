"""A part of the real broker that nobody else uses, and a line to it that can be cut."""

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import requests
from kombu import Connection

from deploy import broker


@dataclass(frozen=True)
class VirtualHost:
    """A virtual host of our own: its exchanges and queues meet no running worker."""

    name: str
    url: str
    management_url: str

    @contextlib.contextmanager
    def channel(self) -> Iterator[Any]:
        """Return a channel for a test to look and to meddle with."""
        with Connection(self.url) as connection:
            yield connection.channel()

    def declare_queue(self, name: str, **arguments: object) -> None:
        """Declare a durable queue with a maximum length or the like."""
        with self.channel() as channel:
            channel.queue_declare(
                name, durable=True, auto_delete=False, arguments=arguments or None
            )

    def bind(self, queue: str, exchange: str, routing_key: str) -> None:
        """Subscribe a queue to an exchange."""
        with self.channel() as channel:
            channel.exchange_declare(exchange, "topic", durable=True, auto_delete=False)
            channel.queue_bind(queue, exchange, routing_key)

    def delete_queue(self, name: str) -> None:
        """Delete a queue and what is in it."""
        with self.channel() as channel:
            channel.queue_delete(name)

    def count(self, queue: str) -> int:
        """Return how many messages are in a queue and in nobody's hands."""
        with self.channel() as channel:
            return channel.queue_declare(queue, passive=True).message_count

    def take_all(self, queue: str) -> list[Any]:
        """Take what is in a queue. Bodies are bytes, whatever their headers call them."""
        taken = []
        with self.channel() as channel:
            channel.auto_decode = False
            while message := channel.basic_get(queue, no_ack=True):
                taken.append(message)
        return taken

    def take(self, queue: str, *, count: int) -> list[Any]:
        """Take messages as they arrive, until there are as many as expected."""
        taken: list[Any] = []

        def enough() -> bool:
            taken.extend(self.take_all(queue))
            return len(taken) >= count

        eventually(enough)
        return taken


@contextlib.contextmanager
def virtual_host(*, queue_type: str | None = "classic") -> Iterator[VirtualHost]:
    """Make a virtual host on the broker of `BROKER_URL`, and delete it with all that is in it.

    It is prepared as that of an installation is, unless there is no `queue_type`.
    """
    management_url = os.environ["RABBITMQ_MANAGEMENT_URL"]
    broker_url = urlsplit(os.environ["BROKER_URL"])
    name = f"test-{os.getpid()}-{uuid4().hex[:8]}"
    address = f"{management_url}/api/vhosts/{name}"
    if queue_type is None:
        requests.put(address, timeout=10).raise_for_status()
    else:
        broker.prepare(management_url, queue_type=queue_type, virtual_host=name)
    try:
        requests.put(
            f"{management_url}/api/permissions/{name}/{broker_url.username}",
            json={"configure": ".*", "write": ".*", "read": ".*"},
            timeout=10,
        ).raise_for_status()
        yield VirtualHost(name, broker_url._replace(path=f"/{name}").geturl(), management_url)
    finally:
        requests.delete(address, timeout=10).raise_for_status()


def eventually(is_so: Callable[[], bool], *, within_seconds: float = 60.0) -> None:
    """Wait until something is so; fail when it does not become so."""
    deadline = time.monotonic() + within_seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def unused_port() -> int:
    """Return a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Line:
    """A TCP line to a server that can be cut, and that can fall silent."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._is_silent = threading.Event()
        self._is_closed = threading.Event()
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def fall_silent(self) -> None:
        """Take what is sent from now on, and deliver nothing in either direction."""
        self._is_silent.set()

    def cut(self) -> None:
        """End every connection; new ones are possible."""
        for pair in self._pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it all."""
        self._is_closed.set()
        self.cut()
        self._listening.join()

    def _listen(self) -> None:
        forwarders = []
        self._listener.settimeout(0.05)
        while not self._is_closed.is_set():
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            pair = (near, socket.create_connection(self._target))
            self._pairs.append(pair)
            forwarder = threading.Thread(target=self._forward, args=pair, daemon=True)
            forwarder.start()
            forwarders.append(forwarder)
        self._listener.close()
        self.cut()
        for forwarder in forwarders:
            forwarder.join()

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        with near, far, selectors.DefaultSelector() as selector:
            selector.register(near, selectors.EVENT_READ, far)
            selector.register(far, selectors.EVENT_READ, near)
            while True:
                for key, _ in selector.select():
                    source: Any = key.fileobj
                    try:
                        sent = source.recv(65536)
                        if not sent:
                            return
                        if not self._is_silent.is_set():
                            key.data.sendall(sent)
                    except OSError:
                        return


@contextlib.contextmanager
def line_to(host: VirtualHost) -> Iterator[tuple[Line, str]]:
    """Return a line to the broker, and the URL to use it by."""
    url = urlsplit(host.url)
    line = Line(url.hostname or "", url.port or 5672)
    credentials = f"{url.username}:{url.password}"
    try:
        yield line, url._replace(netloc=f"{credentials}@127.0.0.1:{line.port}").geturl()
    finally:
        line.close()
