"""What the tests of servicekit share: servers of their own."""

from tests import own_servers

own_servers.provide("products")

from collections.abc import Iterator

import pytest

from servicekit.messaging.backoff import Backoff
from servicekit.messaging.consumer import ConsumerThread
from servicekit.messaging.publisher import ConfirmingPublisher
from tests.servicekit.private_broker import VirtualHost
from tools.chaos.proxy import Proxy


@pytest.fixture
def line(broker: VirtualHost) -> Iterator[Proxy]:
    with Proxy(broker.url) as line:
        yield line


@pytest.fixture
def publisher(broker: VirtualHost) -> Iterator[ConfirmingPublisher]:
    made = ConfirmingPublisher(broker.url)
    yield made
    made.close()


@pytest.fixture
def impatient(monkeypatch) -> None:
    """Growing pauses and long looks would only make the tests slow."""
    drain = ConsumerThread.drain
    monkeypatch.setattr(Backoff, "next_seconds", lambda _backoff: 0.02)
    monkeypatch.setattr(
        ConsumerThread, "drain", lambda thread, seconds: drain(thread, min(seconds, 0.05))
    )
