"""A part of the real broker that nobody else uses."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import requests
from kombu import Connection

from deploy import broker
from servicekit.messaging.topology import CONSUMED_FROM

T = TypeVar("T")


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

    It is prepared as that of an installation is, with the queues where our own consumers wait for
    events, but unbound; unless there is no `queue_type`.
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
        host = VirtualHost(name, broker_url._replace(path=f"/{name}").geturl(), management_url)
        for queue in sorted({*CONSUMED_FROM.values()} if queue_type else ()):
            host.declare_queue(queue)
        yield host
    finally:
        requests.delete(address, timeout=10).raise_for_status()


def eventually(probe: Callable[[], T | None], *, within_seconds: float = 60.0) -> T:
    """Return the first truthy answer of `probe`; fail when there is none in time."""
    deadline = time.monotonic() + within_seconds
    while not (answer := probe()):
        assert time.monotonic() < deadline, f"still not so after {within_seconds} s"
        time.sleep(0.02)
    return answer


def unused_port() -> int:
    """Return a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
