"""The ids of the request that an order was accepted by stay with the order."""

import msgspec
import pytest
from prometheus_client import REGISTRY

from orders_project.orders.commands import PersistOrders
from orders_project.orders.models import Order
from orders_project.orders.subscriptions import place_and_announce
from servicekit.identifiers import new_id
from servicekit.messaging.envelope import Received
from tests.orders.ordering import place

pytestmark = pytest.mark.django_db(transaction=True)

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
IDS = {"X-Request-ID": "me-1", "traceparent": TRACEPARENT}


@pytest.fixture
def order(client, product_service):
    """Return a function that orders under a request id, in a trace."""

    def order_one(quantity: int = 1, **headers: str):
        return place(client, product_service.add(qty=3), quantity, **headers)

    return order_one


class TestAnOrder:
    def test_is_handed_over_with_the_ids_of_its_request_and_counted(self, order, broker_with_queue):
        before = REGISTRY.get_sample_value("intake_batch_orders_sum")
        answer = order(**IDS)

        [task] = broker_with_queue.take_all("orders.persist")
        [handed_over] = msgspec.json.decode(task.body)[1]["orders"]
        assert answer["X-Request-ID"] == handed_over["requestId"] == "me-1"
        assert handed_over["traceparent"] == TRACEPARENT
        assert REGISTRY.get_sample_value("intake_batch_orders_sum") == before + 1

    def test_is_announced_under_them_when_it_has_a_key(self, order, broker_with_queue):
        broker_with_queue.declare_queue("announced")
        broker_with_queue.bind("announced", "order.exchange", "order.created")
        order(**IDS, **{"Idempotency-Key": str(new_id())})

        [event] = broker_with_queue.take_all("announced")
        broker_with_queue.delete_queue("announced")
        assert event.headers["request_id"] == "me-1"
        assert event.headers["traceparent"] == TRACEPARENT

    def test_is_counted_when_it_is_stored_without_the_broker(self, order, without_broker):  # noqa: ARG002 - stops it
        before = REGISTRY.get_sample_value("intake_fallback_orders_total")
        order()

        assert Order.objects.count() == 1
        assert REGISTRY.get_sample_value("intake_fallback_orders_total") == before + 1

    @pytest.mark.usefixtures("without_broker")
    def test_is_looked_up_under_them_at_the_product_service(self, order, product_service):
        order(**IDS)

        [headers] = product_service.headers
        assert headers["X-Request-ID"] == "me-1"
        assert headers["traceparent"] == TRACEPARENT


class TestOrdersOfOneBatch:
    def test_are_announced_each_under_its_own_ids(self, accepted_order):
        orders = [
            accepted_order(request_id="a", traceparent=TRACEPARENT),
            accepted_order(request_id="b"),
            accepted_order(),
            accepted_order(request_id="not safe", traceparent="nor this"),
        ]
        handled = place_and_announce([Received(PersistOrders(orders=orders))])

        ids = [answer.correlation_id for answer in handled.answers]
        assert ids == [str(each.id) for each in orders]
        known = [answer.headers for answer in handled.answers]
        assert all(headers.pop("timestamp_in_ms") for headers in known)
        assert known == [
            {"request_id": "a", "traceparent": TRACEPARENT}, {"request_id": "b"}, {}, {},
        ]  # fmt: skip


class TestCounting:
    def test_tells_why_orders_are_refused(self, order):
        labels = {"method": "POST", "route": "/orders", "code": "insufficient_stock"}
        before = REGISTRY.get_sample_value("http_problems_total", labels) or 0
        order(quantity=4)

        assert REGISTRY.get_sample_value("http_problems_total", labels) == before + 1
