"""What the tests of servicekit share: servers of their own."""

from tests import own_servers

own_servers.provide("products")

from collections.abc import Iterator

import pytest

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
