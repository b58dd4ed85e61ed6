"""The order service works while it can make orders durable, with less or with all of the rest."""

import socket
from collections.abc import Callable, Iterator

import pytest
from django.db import connection
from django.db.backends.signals import connection_created

from servicekit.caching import redis as caching
from tests.servicekit.private_broker import eventually, unused_port
from tools.chaos.proxy import Proxy

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ready(client, broker, settings, product_service):  # noqa: ARG001 - it answers
    """Return a function that asks, with everything up to begin with."""
    settings.BROKER_URL = broker.url

    def ask() -> tuple[int, str, set[str]]:
        answer = client.get("/health/ready")
        down = {name for name, state in answer.json()["checks"].items() if state == "down"}
        return answer.status_code, answer.json()["status"], down

    return ask


@pytest.fixture
def silence() -> Iterator[int]:
    """A port where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def take_away(request, settings, monkeypatch) -> Callable[..., None]:
    """Return a function that has nothing listen where something should."""

    def take(*names: str) -> None:
        for name in names:
            if name == "broker":
                settings.BROKER_URL = f"amqp://127.0.0.1:{unused_port()}//"
            elif name == "redis":
                request.getfixturevalue("without_redis")
            elif name == "database":
                monkeypatch.setitem(connection.settings_dict, "PORT", unused_port())
            else:
                settings.PRODUCT_API_URL = f"http://127.0.0.1:{unused_port()}/products"

    return take


class TestReady:
    def test_says_so_when_everything_is_there(self, ready):
        assert ready() == (200, "ready", set())

    @pytest.mark.parametrize("gone", ["broker", "redis", "database", "product-service"])
    def test_is_degraded_without_one_of_them(self, ready, take_away, gone):
        take_away(gone)

        assert ready() == (200, "degraded", {gone})

    def test_asks_again_though_what_it_asked_before_is_never_answered(self, ready, monkeypatch):
        address = "postgresql://{HOST}:{PORT}".format(**connection.settings_dict)
        line = Proxy(address)
        monkeypatch.setitem(connection.settings_dict, "PORT", line.port)
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], "answer_seconds", 2)
        assert ready() == (200, "ready", set())

        def fall_silent(**_facts: object) -> None:
            line.blackhole()

        # Not before: to connect has a time limit of its own.
        connection_created.connect(fall_silent)
        assert ready() == (200, "degraded", {"database"})
        connection_created.disconnect(fall_silent)
        line.heal()
        eventually(lambda: ready() == (200, "ready", set()), within_seconds=30)
        line.close()

    def test_is_degraded_when_the_product_service_does_not_work(self, ready, product_service):
        product_service.is_broken = True

        assert ready() == (200, "degraded", {"product-service"})

    def test_is_not_without_database_and_broker(self, ready, take_away):
        take_away("database", "broker")

        assert ready() == (503, "not_ready", {"database", "broker"})

    def test_says_the_same_of_servers_that_hang(self, ready, settings, monkeypatch, silence):
        monkeypatch.setitem(connection.settings_dict, "PORT", silence)
        monkeypatch.setattr(caching, "_breaker", type(caching._breaker)("it", pause_seconds=1.0))
        settings.CACHES = {
            "default": {**settings.CACHES["default"], "LOCATION": f"redis://127.0.0.1:{silence}/0"}
        }
        settings.PRODUCT_API_URL = f"http://127.0.0.1:{silence}/products"

        assert ready() == (200, "degraded", {"database", "redis", "product-service"})
