"""Whatever comes as an event or a task is applied or dead-lettered, once, and no more."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
import pytest
from django.db.models.functions import Now
from django_redis import get_redis_connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orders_project.orders import catalog, services
from orders_project.orders.commands import PersistOrders
from orders_project.orders.models import Order
from orders_project.orders.subscriptions import SUBSCRIPTIONS, place_and_announce
from servicekit.contracts.events import (
    ProductArchived,
    ProductCreated,
    ProductUpdated,
    StockDecided,
)
from servicekit.identifiers import new_id
from servicekit.messaging import topology
from servicekit.messaging.celery_protocol import TaskSource
from servicekit.messaging.publisher import ConfirmingPublisher
from tests.orders import ordering
from tests.orders.stock_news import released, reserved
from tests.servicekit.noise import Letterbox, as_json, messages

pytestmark = pytest.mark.django_db(transaction=True)


class Task(TaskSource):
    """The task's queue, which Celery declares elsewhere."""

    def declare(self, channel: Any) -> None:
        topology.declare_queue(channel, self.queue, keys=[])


STOCK, PRODUCTS = SUBSCRIPTIONS
TASK = Task(PersistOrders.queue, PersistOrders, place_and_announce)


an_order = partial(ordering.an_order, total_price=2, request_id="me")


def a_decision() -> Any:
    order = an_order()
    services.place_orders([order])
    facts = {"announced_at": "2026-11-23T10:00:00Z", "decided_at": "2026-11-23T10:00:00Z"}
    return StockDecided(decisions=[reserved(order, price=1, reason="", request_id="me", **facts)])


def a_release() -> Any:
    order = an_order()
    services.place_orders([order])
    services.cancel_order(order.id)
    return released(order)


def a_product(kind: Any) -> Callable[[], Any]:
    return lambda: kind(
        id=new_id(), name="Lamp", price=1, qty=1, created_at="2026-11-23T10:00:00.000Z", version=1
    )


def status_of(told: Any) -> str:
    order_id = told["decisions"][0]["orderId"] if "decisions" in told else told["orderId"]
    order = Order.objects.get(id=order_id)
    return "RELEASED" if order.released_at else order.status


def price_of(told: Any) -> int | None:
    known = catalog.get(UUID(told["id"]))
    return known and known.price


@dataclass
class Contract:
    """How a good message is made, and how one sees that it was applied."""

    source: Any
    make: Callable[[], Any]
    effect: Callable[[Any], object]
    expected: object


CONTRACTS = {
    "stock.decided": Contract(STOCK, a_decision, status_of, "CONFIRMED"),
    "stock.released": Contract(STOCK, a_release, status_of, "RELEASED"),
    "product.created": Contract(PRODUCTS, a_product(ProductCreated), price_of, 1),
    "product.updated": Contract(PRODUCTS, a_product(ProductUpdated), price_of, 1),
    "product.archived": Contract(PRODUCTS, a_product(ProductArchived), price_of, None),
    "orders.persist_orders": Contract(
        TASK,
        lambda: [[], PersistOrders(orders=[an_order()]), {}],
        lambda told: Order.objects.get(id=told[1]["orders"][0]["id"]).quantity,
        2,
    ),
}


@pytest.fixture(params=CONTRACTS.items(), ids=CONTRACTS)
def contract(request, broker) -> Iterator[tuple[Contract, Letterbox]]:
    name, contract = request.param
    letterbox = Letterbox(
        broker, contract.source, type=name, application_headers={"task": PersistOrders.task_name}
    )
    yield contract, letterbox
    letterbox.close()


def rows() -> dict[UUID, str]:
    return dict(Order.objects.values_list("id", "status"))


def cached() -> set[bytes]:
    return set(get_redis_connection("default").scan_iter("*", count=10_000))


def ids_in(applied: list[Any]) -> set[str]:
    return set(re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", str(applied).lower()))


@given(data=st.data())
@settings(
    max_examples=settings().max_examples // 4,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_is_applied_or_dead_lettered_and_its_neighbours_are_applied(contract, client, broker, data):
    contract, letterbox = contract
    first, middle, last = (
        msgspec.json.decode(msgspec.json.encode(contract.make())) for _ in range(3)
    )
    noise = data.draw(st.lists(messages(middle), max_size=6))
    rows_before, cached_before = rows(), cached()
    applied, _ = letterbox.send([as_json(first), *noise, as_json(last)])

    assert [contract.effect(told) for told in (first, last)] == [contract.expected] * 2
    # Of what is dead-lettered nothing is left, neither a row nor a key.
    told = ids_in([msgspec.json.encode(each) for each in applied])
    changed = dict(rows().items() - rows_before.items())
    assert {str(order_id) for order_id in changed} <= told
    assert all(ids_in([key]) <= told for key in cached() - cached_before)
    # What is applied keeps nobody from going on.
    assert client.get("/orders?limit=500").status_code == 200
    Order.objects.update(recheck_at=Now())
    publisher = ConfirmingPublisher(broker.url)
    assert services.announce_overdue_orders(publisher) == min(500, Order.objects.count())
    publisher.close()
