"""The ids of the request that an order was accepted by stay with the order."""

import msgspec
import pytest
from prometheus_client import REGISTRY

from celery_workers.orders.tasks import place_and_announce
from orders_project.orders.commands import PersistOrders
from orders_project.orders.models import Order
from servicekit.identifiers import new_id
from servicekit.messaging.envelope import Received

pytestmark = pytest.mark.django_db(transaction=True)

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture
def order(client, product_service):
    """Return a function that orders under a request id, in a trace."""

    def place(quantity: int = 1, **headers: str):
        return client.post(
            "/orders", {"productId": product_service.add(qty=3), "quantity": quantity},
            content_type="application/json", headers=headers,
        )  # fmt: skip

    return place


class TestAnOrder:
    def test_is_handed_over_with_the_ids_of_its_request(self, order, broker_with_queue):
        answer = order(**{"X-Request-ID": "me-1", "traceparent": TRACEPARENT})

        [task] = broker_with_queue.take_all("orders.persist")
        [handed_over] = msgspec.json.decode(task.body)[1]["orders"]
        assert answer["X-Request-ID"] == handed_over["requestId"] == "me-1"
        assert handed_over["traceparent"] == TRACEPARENT

    def test_is_announced_under_them_when_it_has_a_key(self, order, broker_with_queue):
        broker_with_queue.declare_queue("announced")
        broker_with_queue.bind("announced", "order.exchange", "order.created")
        order(
            **{"X-Request-ID": "me-1", "traceparent": TRACEPARENT, "Idempotency-Key": str(new_id())}
        )

        [event] = broker_with_queue.take_all("announced")
        broker_with_queue.delete_queue("announced")
        assert event.headers["request_id"] == "me-1"
        assert event.headers["traceparent"] == TRACEPARENT

    def test_is_counted_when_it_is_stored_without_the_broker(self, order, without_broker):  # noqa: ARG002 - stops it
        before = REGISTRY.get_sample_value("intake_fallback_orders_total")
        order()

        assert Order.objects.count() == 1
        assert REGISTRY.get_sample_value("intake_fallback_orders_total") == before + 1

    def test_is_looked_up_under_them_at_the_product_service(
        self,
        order,
        without_broker,  # noqa: ARG002 - as above
        product_service,
    ):
        order(**{"X-Request-ID": "me-1", "traceparent": TRACEPARENT})

        [headers] = product_service.headers
        assert headers["X-Request-ID"] == "me-1"
        assert headers["traceparent"] == TRACEPARENT

    @pytest.mark.parametrize("malformed", ["nonsense", TRACEPARENT.upper(), f"{TRACEPARENT}-1"])
    def test_has_a_trace_of_its_own_when_its_caller_writes_nonsense(
        self, order, broker_with_queue, malformed
    ):
        assert order(traceparent=malformed).status_code == 201

        [task] = broker_with_queue.take_all("orders.persist")
        [handed_over] = msgspec.json.decode(task.body)[1]["orders"]
        assert handed_over["traceparent"][3:35].lower() not in malformed.lower()


class TestOrdersOfOneBatch:
    def test_are_announced_each_under_its_own_ids(self, accepted_order):
        orders = [
            accepted_order(request_id="a", traceparent=TRACEPARENT),
            accepted_order(request_id="b"),
            accepted_order(),
            accepted_order(request_id="not safe", traceparent="nor this"),
        ]
        handled = place_and_announce([Received(PersistOrders(orders=orders))])

        assert [answer.correlation_id for answer in handled.answers] == [
            str(each.id) for each in orders
        ]
        known = [
            {name: text for name, text in answer.headers.items() if name != "timestamp_in_ms"}
            for answer in handled.answers
        ]
        assert known == [
            {"request_id": "a", "traceparent": TRACEPARENT}, {"request_id": "b"}, {}, {},
        ]  # fmt: skip


class TestCounting:
    def test_tells_how_many_orders_became_durable_together(self, order, broker_with_queue):  # noqa: ARG002 - takes them
        before = REGISTRY.get_sample_value("intake_batch_orders_sum")
        order()

        assert REGISTRY.get_sample_value("intake_batch_orders_sum") == before + 1

    def test_tells_why_orders_are_refused(self, order):
        labels = {"method": "POST", "route": "/orders", "code": "insufficient_stock"}
        before = REGISTRY.get_sample_value("http_problems_total", labels) or 0
        order(quantity=4)

        assert REGISTRY.get_sample_value("http_problems_total", labels) == before + 1
