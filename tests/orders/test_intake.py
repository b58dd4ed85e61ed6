"""Accepting orders over HTTP, with a real broker, a real database, and each of them away."""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from orders_project.orders import cache, services
from orders_project.orders.commands import PersistOrders
from orders_project.orders.models import Order
from orders_project.orders.placement import durability
from orders_project.orders.placement.durability import Outcome
from orders_project.orders.placement.pricing import Pricing
from servicekit.caching import refusals
from servicekit.contracts.fields import MAX_INT64
from servicekit.http.deadline import DeadlineExceeded
from servicekit.identifiers import new_id
from servicekit.outbox.models import OutgoingEvent
from tests.orders.ordering import place
from tests.orders.stock_news import put
from tests.servicekit.private_broker import eventually, unused_port
from tools.chaos.proxy import Proxy

pytestmark = pytest.mark.django_db(transaction=True)


RAISE = "DO $$ BEGIN RAISE SQLSTATE '%s'; END $$"


def handed_over(broker: Any, *, count: int = 1) -> list[PersistOrders]:
    """What the workers would get."""
    messages = broker.take(PersistOrders.queue, count=count)
    return [PersistOrders.parse(msgspec.json.decode(message.body)[1]) for message in messages]


def assert_left_no_trace(broker: Any) -> None:
    assert not Order.objects.exists()
    assert not OutgoingEvent.objects.exists()
    assert broker.count(PersistOrders.queue) == 0


class TestAnAcceptedOrder:
    @pytest.fixture
    def answer(self, client, product_service, broker_with_queue):  # noqa: ARG002 - all up
        return place(client, product_service.add(price=190_000), quantity=2)

    def test_is_answered_with_201_and_all_there_is_to_know(self, answer, product_service):
        [product_id] = product_service.products
        body = answer.json()

        assert answer.status_code == 201
        assert set(body) == {"id", "productId", "quantity", "totalPrice", "status", "createdAt"}
        assert (body["productId"], body["quantity"]) == (str(product_id), 2)
        assert (body["totalPrice"], body["status"]) == (380_000, "PENDING")
        assert UUID(body["id"]).version == 7

    def test_is_found_at_once_where_the_answer_says(self, answer, client):
        found = client.get(answer["Location"])

        assert answer["Location"] == f"http://testserver/orders/{answer.json()['id']}"
        assert (found.status_code, found.json()) == (200, answer.json())

    def test_is_handed_to_the_workers_as_it_was_acknowledged(self, answer, broker_with_queue):
        [command] = handed_over(broker_with_queue)
        [accepted] = command.orders

        assert str(accepted.id) == answer.json()["id"]
        assert (accepted.quantity, accepted.total_price) == (2, 380_000)

    @pytest.mark.usefixtures("answer")
    def test_is_handed_over_as_a_persistent_celery_task(self, broker_with_queue):
        [message] = broker_with_queue.take(PersistOrders.queue, count=1)

        headers = message.headers
        assert (headers["lang"], headers["task"]) == ("py", "orders.persist_orders")
        assert headers["id"] == headers["root_id"] == message.properties["correlation_id"]
        assert message.properties["delivery_mode"] == 2
        assert message.properties["content_type"] == "application/json"
        assert message.properties["content_encoding"] == "utf-8"
        arguments, keywords, embedded = msgspec.json.decode(message.body)
        assert (arguments, set(keywords)) == ([], {"orders"})
        assert not any(embedded.values())


class TestTheName:
    @pytest.mark.parametrize(
        ("name", "kept"), [("Lamp", "Lamp"), ("L\0amp" * 99, ("Lamp" * 99)[:255])]
    )
    def test_is_kept_as_it_was_when_the_order_was_accepted(
        self, client, product_service, broker_with_queue, name, kept
    ):
        product_id = product_service.add()
        product_service.products[product_id]["name"] = name
        # From the source; from what is remembered of it; and stored by ourselves.
        for headers in ({}, {}, {"Idempotency-Key": str(product_id)}):
            assert place(client, product_id, **headers).status_code == 201

        handed = handed_over(broker_with_queue)
        assert {order.product_name for each in handed for order in each.orders} == {kept}
        assert Order.objects.get().product_name == kept


class TestThePrice:
    @pytest.mark.usefixtures("broker_with_queue")
    def test_is_that_of_our_copy_when_we_have_a_fresh_one(self, client, product_service):
        product_id = product_service.add(price=999)
        put(product_id, price=5, qty=10, version=9)

        assert place(client, product_id).json()["totalPrice"] == 10
        assert product_service.asked == []

    @pytest.mark.usefixtures("broker_with_queue")
    def test_is_asked_for_once_and_kept(self, client, product_service):
        product_id = product_service.add(price=7)
        answers = [place(client, product_id) for _ in range(3)]

        assert [answer.json()["totalPrice"] for answer in answers] == [14, 14, 14]
        assert product_service.asked == [product_id]

    def test_times_quantity_beyond_64_bits_is_refused(
        self, client, product_service, broker_with_queue
    ):
        product_id = product_service.add(price=MAX_INT64 // 2, qty=100)

        assert place(client, product_id, 2).status_code == 201
        handed_over(broker_with_queue)
        answer = place(client, product_id, 3)
        assert (answer.status_code, answer.json()["code"]) == (400, "total_price_too_large")
        assert_left_no_trace(broker_with_queue)


class TestARefusal:
    """Only the product service refuses, never our copy of what it said once."""

    def test_tells_how_many_units_there_are(self, client, product_service, broker_with_queue):
        answer = place(client, product_service.add(qty=3), 4)

        assert (answer.status_code, answer.json()["code"]) == (400, "insufficient_stock")
        assert answer.json()["available"] == 3
        assert answer["Content-Type"] == "application/problem+json"
        assert_left_no_trace(broker_with_queue)

    def test_of_a_product_that_does_not_exist_is_404(
        self, client, product_service, broker_with_queue
    ):
        answer = place(client, new_id())

        assert (answer.status_code, answer.json()["code"]) == (404, "product_not_found")
        assert len(product_service.asked) == 1
        assert_left_no_trace(broker_with_queue)

    @pytest.mark.usefixtures("broker_with_queue")
    def test_does_not_follow_from_a_copy_that_says_too_few(self, client, product_service):
        product_id = product_service.add(qty=100, version=2)
        put(product_id, price=190_000, qty=0, version=1)

        assert place(client, product_id).status_code == 201
        assert product_service.asked == [product_id]
        # Past the cache of the product service, too, which may say too few for as long as it lives.
        assert product_service.headers[0]["Cache-Control"] == "no-cache"

    @pytest.mark.usefixtures("broker_with_queue")
    @pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "a-few-too-many"}])
    def test_is_counted_by_product_and_of_none_as_one(self, client, product_service, headers):
        short, dear = product_service.add(qty=1), product_service.add(price=MAX_INT64, qty=100)
        for product_id in (short, short, dear, new_id(), new_id()):
            assert place(client, product_id, 2, **headers).status_code in (400, 404)

        def is_told() -> bool:
            # Nothing from a Redis that is busy for a moment.
            told = sum((refusals.slices(0) or {}).values(), Counter())
            return (
                told.get(("insufficient_stock", short)) == 2
                and told.get(("total_price_too_large", dear)) == 1
                and told.get(("product_not_found", None), 0) >= 2
            )

        eventually(is_told)

    @pytest.mark.usefixtures("broker_with_queue", "without_redis")
    def test_needs_no_redis(self, client, product_service):
        assert place(client, product_service.add(qty=1), 2).status_code == 400


@pytest.mark.usefixtures("broker_with_queue")
class TestWithoutTheProductService:
    @pytest.fixture(params=["gone", "broken", "talking nonsense"])
    def product_id(self, request, product_service, settings) -> UUID:
        product_id = product_service.add()
        if request.param == "gone":
            settings.PRODUCT_API_URL = f"http://127.0.0.1:{unused_port()}/products"
        elif request.param == "broken":
            product_service.is_broken = True
        else:
            product_service.answer_instead = b'{"id": 1, "price": "much"}'
        return product_id

    @pytest.mark.parametrize("qty", [100, 0], ids=["that says enough", "that says too few"])
    def test_an_order_is_accepted_by_a_copy(self, client, product_id, qty):
        put(product_id, price=5, qty=qty, version=1)

        answer = place(client, product_id)

        assert (answer.status_code, answer.json()["totalPrice"]) == (201, 10)

    def test_an_order_without_a_copy_is_not_accepted_and_told_when_to_try_again(
        self, client, product_id, broker_with_queue
    ):
        answer = place(client, product_id)

        assert (answer.status_code, answer.json()["code"]) == (503, "not_accepted")
        assert int(answer["Retry-After"]) > 0
        assert_left_no_trace(broker_with_queue)

    @pytest.mark.usefixtures("without_redis")
    def test_an_order_is_not_accepted_without_redis_either(self, client, product_id):
        assert place(client, product_id).status_code == 503


class TestWithoutTime:
    def test_an_order_that_has_no_price_yet_is_not_accepted(
        self, client, product_service, broker_with_queue, monkeypatch
    ):
        def too_late(*_arguments: object) -> None:
            raise DeadlineExceeded

        monkeypatch.setattr(Pricing, "offer", too_late)

        answer = place(client, product_service.add())

        assert (answer.status_code, answer.json()["code"]) == (503, "not_accepted")
        assert_left_no_trace(broker_with_queue)


class TestWithoutTheBroker:
    @staticmethod
    def assert_stored(answer: Any) -> None:
        assert answer.status_code == 201
        stored = Order.objects.get(id=answer.json()["id"])
        assert stored.total_price == answer.json()["totalPrice"]
        # The watchdog announces it at once: nobody else will.
        assert stored.recheck_at <= timezone.now()
        assert cache.get_accepted(stored.id) is None

    @pytest.fixture
    def refusing_queue(self, broker, intake_through) -> Iterator[None]:
        broker.declare_queue(
            PersistOrders.queue, **{"x-max-length": 0, "x-overflow": "reject-publish"}
        )
        intake_through(broker.url)
        yield
        broker.delete_queue(PersistOrders.queue)

    @pytest.fixture
    def missing_queue(self, broker, intake_through) -> None:
        """Without `mandatory`, the broker would confirm a message and drop it."""
        intake_through(broker.url)

    @pytest.mark.parametrize("trouble", ["missing_queue", "refusing_queue", "without_broker"])
    def test_an_order_is_stored(self, client, product_service, request, trouble):
        request.getfixturevalue(trouble)

        self.assert_stored(place(client, product_service.add()))

    @pytest.mark.usefixtures("refusing_queue")
    @pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "refused"}])
    def test_an_order_is_not_denied_when_the_queue_refuses_and_nothing_stores_it(
        self, client, product_service, monkeypatch, headers
    ):
        # A nack says no more than that the broker does not answer for it.
        monkeypatch.setitem(connection.settings_dict, "PORT", unused_port())
        answer = place(client, product_service.add(), **headers)

        assert (answer.status_code, answer.json()["code"]) == (503, "outcome_unknown")
        assert UUID(answer.json()["orderId"])

    def test_an_order_is_stored_when_it_falls_silent(
        self, client, product_service, broker, intake_through
    ):
        broker.declare_queue(PersistOrders.queue)
        product_id = product_service.add()
        try:
            with Proxy(broker.url) as line:
                intake_through(line.url)
                assert place(client, product_id).status_code == 201
                line.blackhole()
                started = time.monotonic()
                answer = place(client, product_id)

                assert time.monotonic() - started < 2
                self.assert_stored(answer)
        finally:
            broker.delete_queue(PersistOrders.queue)

    @pytest.mark.usefixtures("without_broker")
    def test_orders_do_not_try_it_again_at_once(self, client, product_service, monkeypatch):
        product_id = product_service.add()
        place(client, product_id)
        attempts = []
        monkeypatch.setattr(
            "servicekit.messaging.connections.connect", lambda *_a, **_k: attempts.append(1)
        )
        place(client, product_id)

        assert attempts == []
        assert Order.objects.count() == 2

    def test_an_order_goes_through_it_again_when_it_is_back(
        self, client, product_service, broker_with_queue, intake_through, monkeypatch
    ):
        monkeypatch.setattr(durability, "_PAUSE_SECONDS", 0.0)
        product_id = product_service.add()
        with Proxy(broker_with_queue.url) as line:
            intake_through(line.url)
            place(client, product_id)
            line.cut()
            place(client, product_id)
            answer = place(client, product_id)

        ids = {str(one.id) for each in handed_over(broker_with_queue) for one in each.orders}
        assert answer.json()["id"] in ids

    @pytest.mark.usefixtures("without_broker", "without_redis")
    def test_an_order_is_found_at_once_without_redis_as_well(self, client, product_service):
        answer = place(client, product_service.add())

        assert client.get(answer["Location"]).json() == answer.json()


class TestWithoutRedis:
    @pytest.mark.usefixtures("without_redis")
    def test_an_order_is_handed_over_and_stored_so_that_it_can_be_found(
        self, client, product_service, broker_with_queue
    ):
        answer = place(client, product_service.add())

        assert answer.status_code == 201
        assert client.get(answer["Location"]).json() == answer.json()
        [command] = handed_over(broker_with_queue)
        assert str(command.orders[0].id) == answer.json()["id"]


class TestWhenNothingTakesIt:
    @pytest.fixture(autouse=True)
    def intake(self, without_broker) -> Any:
        """There is no other way than the database."""
        return without_broker

    @pytest.mark.parametrize(
        ("outcome", "code", "version"),
        [(Outcome.NOWHERE, "not_accepted", None), (Outcome.UNKNOWN, "outcome_unknown", 7)],
    )
    def test_it_is_a_503_and_names_the_order_if_the_outcome_is_uncertain(
        self, client, product_service, monkeypatch, intake, *, outcome, code, version
    ):
        monkeypatch.setattr(intake._plain_commits, "submit", lambda _order, **_: outcome)
        answer = place(client, product_service.add())

        assert (answer.status_code, answer.json()["code"]) == (503, code)
        assert int(answer["Retry-After"]) > 0
        named = answer.json().get("orderId")
        assert (named and UUID(named).version) == version

    def test_an_uncertain_one_is_not_denied_before_it_is_stored(
        self, client, product_service, monkeypatch
    ):
        store, handed_over = services.place_orders, []

        def be_cut_off(orders: Any, **_: object) -> None:
            handed_over.extend(orders)
            raise OperationalError("gone") from psycopg.OperationalError("server closed it")

        monkeypatch.setattr(services, "place_orders", be_cut_off)
        path = f"/orders/{place(client, product_service.add()).json()['orderId']}"
        before = client.get(path)
        store(handed_over)

        assert (before.status_code, before.json()["code"]) == (503, "order_not_visible_yet")
        assert client.get(path).status_code == 200

    @pytest.mark.parametrize(
        ("statement", "code"),
        [
            ("SELECT pg_terminate_backend(pg_backend_pid())", "outcome_unknown"),
            (RAISE % "57P01", "outcome_unknown"),  # ended by an administrator, or after the commit
            (RAISE % "57014", "not_accepted"),  # cancelled
            (RAISE % "53300", "not_accepted"),  # too many connections
            (RAISE % "55P03", "not_accepted"),  # a lock was not available
        ],
    )
    def test_what_postgresql_says_decides_which(
        self, client, product_service, monkeypatch, statement, code
    ):
        def refuse(_orders: object, **_: object) -> None:
            with connection.cursor() as cursor:
                cursor.execute(statement)

        monkeypatch.setattr("orders_project.orders.services.place_orders", refuse)
        answer = place(client, product_service.add())

        assert (answer.status_code, answer.json()["code"]) == (503, code)
