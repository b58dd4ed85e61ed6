"""The order service works while it can make orders durable, with less or with all of the rest."""

import socket
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.db import connection
from django.db.backends.signals import connection_created

from orders_project.config import urls
from orders_project.orders import cache, services
from servicekit.caching import redis as caching
from servicekit.dead_letters.models import DeadLetter
from servicekit.outbox.models import OutgoingEvent
from servicekit.overview.system import Row
from servicekit.timestamps import now_in_milliseconds
from tests.orders.ordering import an_order
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


class TestTheSystem:
    PAGE = "/admin/system/"

    @pytest.fixture(autouse=True)
    def patience(self, monkeypatch):
        for probes in (urls.system._parts, urls.system._both):
            monkeypatch.setattr(probes, "_within_seconds", 60)

    @pytest.fixture
    def told(self, broker, settings) -> Callable[[], dict[str, tuple[str, str]]]:
        """Return a function that looks, and returns the state and the figure of each part."""
        settings.BROKER_URL = broker.url

        def look() -> dict[str, tuple[str, str]]:
            return {row.what: (row.state, row.figure) for row in urls.system.look()}

        return look

    @pytest.mark.parametrize(
        ("gone", "what", "unknown"),
        [
            ("redis", "Redis", {"Orders to be stored"}),
            ("broker", "RabbitMQ", {"Queue orders.persist", "Queue order_stock_queue",
                                    "Queue order_product_queue"}),
            ("database", "PostgreSQL", {"Outbox", "Dead letters", "Pending orders"}),
        ],
    )  # fmt: skip
    def test_names_what_is_down_and_what_only_that_knows(
        self, told, take_away, gone, what, unknown
    ):
        servers = {"Redis", "RabbitMQ", "PostgreSQL"}
        assert {told()[each][0] for each in servers} == {"well"}
        take_away(gone)

        found = told()
        assert {each for each in servers if found[each][0] == "down"} == {what}
        # Workers of other tests may have reported.
        without = {each for each, (state, _) in found.items() if state == "unknown"} - {"Worker"}
        assert without == unknown

    def test_tells_how_old_what_is_unfinished_is(self, told):
        unfinished = ("Pending orders", "Orders to be stored", "Outbox", "Dead letters")
        assert {told()[each][0] for each in unfinished} == {"well"}
        old = now_in_milliseconds() - timedelta(minutes=7)
        pending, accepted = an_order(created_at=old), an_order()
        services.place_orders([pending])
        cache.keep_copies([accepted])
        caching.best_effort(
            lambda client: client.zadd(cache._ACCEPTED, {cache._copy(accepted.id): old.timestamp()})
        )
        OutgoingEvent.objects.create(event_id=accepted.id, recorded_at=old)
        DeadLetter.objects.create(queue="q", body=b"", fingerprint=b"f", message_id="m")
        found = told()
        cache.forget_accepted([accepted.id])

        assert [found[each] for each in unfinished] == [
            ("degraded", "oldest 7 min old"), ("degraded", "oldest 7 min old"),
            ("degraded", "oldest event 7 min old"), ("degraded", "1 waiting for a decision"),
        ]  # fmt: skip

    def test_has_one_page_with_what_the_other_service_says(
        self, admin_client, product_service, settings, unused_broker_url
    ):
        other = settings.OTHER_SERVICE
        product_service.details = [
            {"of": other["name"], "what": "Worker", "state": "degraded", "figure": "one of two",
             "page": "there/"},
            {"of": "Both services", "what": "Redis", "state": "down", "figure": "silent"},
        ]  # fmt: skip
        pages = []
        for changed in ({"public": "https://products.example"}, {"api": unused_broker_url},
                        {"api": ""}):  # fmt: skip
            settings.OTHER_SERVICE = {**other, **changed}
            pages.append(admin_client.get(self.PAGE).content.decode())
        product_service.details, settings.OTHER_SERVICE = [], other
        assert b"its checks took too long" in admin_client.get(self.PAGE).content

        told, silent, nowhere = pages
        assert 'href="https://products.example/admin/there/">one of two</a>' in told
        # Of what both use, the one that fares worse with it counts.
        assert ">silent" in told.replace("\n", "").replace(" ", "")
        assert f"{other['name']}: Web service" in silent
        assert other["without"] in silent
        assert "its address is not configured" in nowhere

    def test_says_that_everything_works_and_shows_it_to_those_who_log_in(
        self, client, admin_client, product_service, monkeypatch
    ):
        row = {"of": "It", "what": "Everything", "state": "well", "figure": "0"}
        product_service.details = [row]
        monkeypatch.setitem(urls.system._both._checks, "here", lambda: [Row(**row)])

        assert "Everything works." in admin_client.get(self.PAGE).content.decode()
        assert client.get(self.PAGE).url == f"/admin/login/?next={self.PAGE}"

    def test_is_seen_without_a_database_when_nobody_can_log_in(self, client, told, take_away):
        told()
        take_away("database")
        answer = client.get(self.PAGE)

        assert answer.status_code == 200
        assert "Order-Service: PostgreSQL" in answer.content.decode()
