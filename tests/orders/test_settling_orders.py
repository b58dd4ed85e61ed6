"""What becomes of an order when its stock is decided."""

from uuid import UUID

import pytest
from django.db import IntegrityError

from orders_project.orders import catalog, services
from orders_project.orders.models import Order
from servicekit.contracts.events import StockRejected, StockReserved
from servicekit.identifiers import new_id

pytestmark = pytest.mark.django_db


def reserved(order_id: UUID | int | str, product_id: UUID | None = None, **facts) -> StockReserved:
    if isinstance(order_id, UUID):
        order_id = str(order_id)
    facts = {"quantity": 2, "remaining": 8, "version": 2, **facts}
    return StockReserved(order_id=order_id, product_id=product_id or new_id(), **facts)


def rejected(order_id: UUID | int | str, product_id: UUID | None = None, **facts) -> StockRejected:
    facts = {"quantity": 2, "remaining": 1, "version": 2, "reason": "insufficient_stock", **facts}
    return StockRejected(order_id=str(order_id), product_id=product_id or new_id(), **facts)


@pytest.fixture
def order(accepted_order) -> Order:
    accepted = accepted_order()
    services.place_orders([accepted])
    return Order.objects.get(id=accepted.id)


class TestSettleOrders:
    def test_confirms_an_order_that_got_its_stock(self, order):
        assert services.settle_orders([reserved(order.id)]) == []

        order.refresh_from_db()
        assert (order.status, order.reason) == (Order.Status.CONFIRMED, "")
        assert order.settled_at is not None

    def test_rejects_an_order_that_did_not_and_says_why(self, order):
        assert services.settle_orders([rejected(order.id)]) == []

        order.refresh_from_db()
        assert (order.status, order.reason) == (Order.Status.REJECTED, "insufficient_stock")
        assert order.settled_at is not None

    @pytest.mark.parametrize("outcome", [reserved, rejected])
    def test_takes_the_same_outcome_again_for_no_news(self, order, outcome):
        services.settle_orders([outcome(order.id)])
        order.refresh_from_db()
        settled_at = order.settled_at

        assert services.settle_orders([outcome(order.id), outcome(order.id)]) == []
        order.refresh_from_db()
        assert order.settled_at == settled_at

    @pytest.mark.parametrize(("first", "second"), [(reserved, rejected), (rejected, reserved)])
    def test_returns_an_outcome_against_a_final_status_and_keeps_it(self, order, first, second):
        services.settle_orders([first(order.id)])
        order.refresh_from_db()
        status = order.status
        [refused] = services.settle_orders([second(order.id)])

        order.refresh_from_db()
        assert isinstance(refused.event, type(second(order.id)))
        assert status in refused.reason
        assert order.status == status

    def test_lets_the_first_of_two_contradicting_outcomes_in_a_batch_decide(self, order):
        first, second = rejected(order.id), reserved(order.id)
        [refused] = services.settle_orders([first, second])

        order.refresh_from_db()
        assert refused.event is second
        assert order.status == Order.Status.REJECTED

    def test_returns_the_outcome_of_an_order_that_is_not_stored_and_settles_the_others(self, order):
        stranger = reserved(new_id())
        [refused] = services.settle_orders([stranger, reserved(order.id)])

        order.refresh_from_db()
        assert refused.event is stranger
        assert order.status == Order.Status.CONFIRMED

    @pytest.mark.parametrize("foreign", [4711, "4711", "order-4711"])
    def test_ignores_the_orders_of_other_systems(self, order, foreign):
        assert services.settle_orders([reserved(foreign), reserved(order.id)]) == []

        order.refresh_from_db()
        assert order.status == Order.Status.CONFIRMED

    def test_tells_our_copy_of_the_product_what_is_left(self, order):
        catalog.put(product_id=order.product_id, name="Lamp", price=5, qty=10, version=1)
        services.settle_orders([reserved(order.id, order.product_id, remaining=8, version=2)])

        assert catalog.get(order.product_id).qty == 8

    def test_settles_many_at_once(self, accepted_order, django_assert_max_num_queries):
        orders = [accepted_order() for _ in range(50)]
        services.place_orders(orders)
        with django_assert_max_num_queries(6):
            services.settle_orders([reserved(order.id) for order in orders])

        assert Order.objects.filter(status=Order.Status.CONFIRMED).count() == 50


class TestAnOrder:
    def test_cannot_be_final_without_having_been_settled(self, order):
        with pytest.raises(IntegrityError, match="order_settled_has_time"):
            Order.objects.filter(id=order.id).update(status=Order.Status.CONFIRMED)
