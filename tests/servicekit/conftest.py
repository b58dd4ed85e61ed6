"""What the tests of servicekit share: servers of their own."""

import os
from collections.abc import Iterator

import hypothesis
import pytest
from django.db import connections

from servicekit.breaker import Breaker
from tests.servicekit import private_broker
from tests.servicekit.private_broker import Line, VirtualHost

hypothesis.settings.register_profile("with servers", database=None, deadline=None)
hypothesis.settings.load_profile("with servers")


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """Give every run a database of its own, and patience with a busy machine."""
    settings = connections["default"].settings_dict
    settings["TEST"]["NAME"] = f"test_{settings['NAME']}_{os.getpid()}"
    settings["OPTIONS"]["options"] += " -c statement_timeout=20000 -c lock_timeout=20000"


@pytest.fixture(scope="session")
def broker() -> Iterator[VirtualHost]:
    with private_broker.virtual_host() as host:
        yield host


@pytest.fixture
def line(broker: VirtualHost) -> Iterator[tuple[Line, str]]:
    with private_broker.line_to(broker) as line:
        yield line


@pytest.fixture
def without_redis(settings, monkeypatch) -> None:
    """Nothing listens where Redis should be."""
    monkeypatch.setattr("servicekit.caching.redis._breaker", Breaker(pause_seconds=1.0))
    default = settings.CACHES["default"]
    address = f"redis://127.0.0.1:{private_broker.unused_port()}/0"
    settings.CACHES = {"default": {**default, "LOCATION": address}}
