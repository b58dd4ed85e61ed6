"""Whatever comes as an event of orders is applied or dead-lettered, once, and no more."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from products_project.products import services
from products_project.products.models import Product, Reservation, StockMovement
from products_project.products.subscriptions import SUBSCRIPTIONS
from servicekit.contracts.fields import order_key
from servicekit.identifiers import new_id
from tests.servicekit.noise import Letterbox, as_json, messages
from tests.servicekit.private_broker import virtual_host

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=SUBSCRIPTIONS, ids=lambda subscription: subscription.events[0].routing_key)
def letterbox(request) -> Iterator[Letterbox]:
    with virtual_host() as broker:
        opened = Letterbox(broker, request.param)
        yield opened
        opened.close()


@given(data=st.data())
@settings(
    max_examples=settings().max_examples // 4,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_is_applied_or_dead_lettered_and_its_neighbours_are_applied(letterbox, data):
    lamp = services.create_product(name="Lamp", price=1, qty=100)
    first, middle, last = (
        {"orderId": str(new_id()), "productId": str(lamp.id), "quantity": 1} for _ in range(3)
    )
    noise = data.draw(st.lists(messages(middle), max_size=6))
    before = set(Reservation.objects.values_list("order_id", flat=True))
    applied, _ = letterbox.send([as_json(first), *noise, as_json(last)])

    known = {order_key(event.order_id) for event in applied}
    assert {first["orderId"], last["orderId"]} <= known
    assert set(Reservation.objects.values_list("order_id", flat=True)) == before | known
    for product in Product.objects.all():
        moved = StockMovement.objects.filter(product=product).values_list("delta", flat=True)
        assert product.qty == sum(moved)
