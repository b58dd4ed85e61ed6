"""Storing accepted orders, and announcing each that is new."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import msgspec
import pytest
from django.db import connection, transaction
from django.utils import timezone

from orders_project.orders import cache, services
from orders_project.orders.commands import AcceptedOrder
from orders_project.orders.models import Order
from orders_project.orders.representation import announce
from servicekit import failpoints
from servicekit.failpoints import FailpointError, failpoint
from servicekit.outbox import recording
from servicekit.outbox.models import OutgoingEvent
from servicekit.timestamps import rfc3339


def announced() -> list[str]:
    return [event.correlation_id for event in OutgoingEvent.objects.order_by("id")]


@pytest.mark.django_db
class TestPlaceOrders:
    def test_stores_the_payload_that_was_acknowledged(self, accepted_order):
        accepted = accepted_order(quantity=3, total_price=2**63 - 1)
        services.place_orders([accepted])

        stored = Order.objects.get()
        assert stored.id == accepted.id
        assert stored.product_id == accepted.product_id
        assert (stored.quantity, stored.total_price) == (3, 2**63 - 1)
        assert stored.created_at == accepted.created_at
        assert (stored.status, stored.settled_at) == (Order.Status.PENDING, None)

    def test_returns_how_many_were_new(self, accepted_order):
        first, second = accepted_order(), accepted_order()

        assert services.place_orders([first]) == 1
        assert services.place_orders([first, second]) == 1
        assert services.place_orders([first, second]) == 0

    def test_announces_each_new_order_once(self, accepted_order):
        first, second = accepted_order(), accepted_order()
        services.place_orders([first])
        services.place_orders([first, second])
        services.place_orders([second])

        assert announced() == [str(first.id), str(second.id)]

    def test_announces_an_order_once_that_is_twice_in_a_batch(self, accepted_order):
        order = accepted_order()
        services.place_orders([order, order])

        assert Order.objects.count() == 1
        assert announced() == [str(order.id)]

    def test_announces_the_five_fields_that_existing_consumers_read(self, accepted_order):
        order = accepted_order()
        services.place_orders([order])

        [event] = OutgoingEvent.objects.all()
        assert (event.exchange, event.routing_key) == ("order.exchange", "order.created")
        assert msgspec.json.decode(event.body) == {
            "orderId": str(order.id),
            "productId": str(order.product_id),
            "quantity": 2,
            "totalPrice": 380_000,
            "createdAt": rfc3339(order.created_at),
        }

    def test_leaves_an_order_that_is_settled_as_it_is(self, accepted_order):
        order = accepted_order()
        services.place_orders([order])
        Order.objects.update(status=Order.Status.CONFIRMED, settled_at=timezone.now())
        services.place_orders([order])

        assert Order.objects.get().status == Order.Status.CONFIRMED

    def test_forgets_the_copy_that_bridged_the_time_until_now(self, accepted_order):
        order = accepted_order()
        cache.offer_copies([order])
        services.place_orders([order])

        assert cache.get_accepted(order.id) is None

    def test_does_nothing_for_an_empty_batch(self):
        assert services.place_orders([]) == 0

    @pytest.mark.usefixtures("without_redis")
    def test_needs_no_redis(self, accepted_order):
        assert services.place_orders([accepted_order()]) == 1


@pytest.mark.django_db(transaction=True)
class TestPlaceOrdersTwiceAtOnce:
    def test_stores_and_announces_every_order_once(self, accepted_order):
        # The worker and the web process, each with the same batch, in different order.
        orders = [accepted_order() for _ in range(20)]

        def place(batch: Sequence[AcceptedOrder]) -> int:
            try:
                return services.place_orders(batch)
            finally:
                connection.close()

        with ThreadPoolExecutor(4) as threads:
            new = sum(threads.map(place, [orders, orders[::-1]] * 4))

        assert new == Order.objects.count() == 20
        assert sorted(announced()) == sorted(str(order.id) for order in orders)


def store_and_announce_afterwards(orders: Sequence[AcceptedOrder]) -> None:
    """Store in one transaction and announce after it: what goes without saying elsewhere."""
    with transaction.atomic():
        new = Order.objects.insert_new(orders)
    failpoint("between")
    with transaction.atomic():
        recording.record_all(announce(order) for order in orders if order.id in new)


@pytest.mark.django_db(transaction=True)
class TestACrashWhilePlacingOrders:
    """After a crash the batch is delivered again, as the broker does with what is not acked."""

    @staticmethod
    def crash_and_deliver_again(monkeypatch, place, orders, *, at: str) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(failpoints, "_ACTIONS", {at: "raise"})
            with pytest.raises(FailpointError):
                place(orders)
        place(orders)

    def test_does_lose_the_event_that_is_recorded_afterwards(self, accepted_order, monkeypatch):
        # The negative control: the order is stored, is not new the second time, and so nobody
        # will ever hear of it. If this fails, the test below passes for the wrong reason.
        order = accepted_order()
        self.crash_and_deliver_again(
            monkeypatch, store_and_announce_afterwards, [order], at="between"
        )

        assert Order.objects.count() == 1
        assert announced() == []

    @pytest.mark.parametrize("place_in_code", ["before_commit", "after_commit"])
    def test_never_loses_ours(self, accepted_order, monkeypatch, place_in_code):
        order = accepted_order()
        self.crash_and_deliver_again(
            monkeypatch, services.place_orders, [order], at=f"orders.place.{place_in_code}"
        )

        assert Order.objects.count() == 1
        assert announced() == [str(order.id)]

    def test_leaves_neither_order_nor_event_when_it_comes_before_the_commit(
        self, accepted_order, monkeypatch
    ):
        monkeypatch.setattr(failpoints, "_ACTIONS", {"orders.place.before_commit": "raise"})
        with pytest.raises(FailpointError):
            services.place_orders([accepted_order()])

        assert not Order.objects.exists()
        assert announced() == []


@pytest.mark.django_db
class TestAnnounceOverdueOrders:
    @pytest.fixture
    def order(self, accepted_order) -> Order:
        services.place_orders([accepted_order()])
        OutgoingEvent.objects.all().delete()
        return Order.objects.get()

    @staticmethod
    def make_overdue(order: Order, *, age_seconds: int = 60) -> None:
        created_at = timezone.now() - timedelta(seconds=age_seconds)
        Order.objects.filter(id=order.id).update(
            created_at=created_at, recheck_at=created_at + timedelta(seconds=30)
        )

    def test_leaves_a_fresh_order_in_peace(self, order):  # noqa: ARG002 - it is there
        assert services.announce_overdue_orders() == 0
        assert announced() == []

    def test_announces_one_that_has_waited_too_long(self, order):
        self.make_overdue(order)

        assert services.announce_overdue_orders() == 1
        assert announced() == [str(order.id)]

    def test_says_the_same_under_the_same_event_id(self, order):
        self.make_overdue(order)
        order.refresh_from_db()
        services.announce_overdue_orders()

        [event] = OutgoingEvent.objects.all()
        assert event.event_id == announce(order).event_id
        assert event.body.encode() == announce(order).to_json()

    def test_does_not_say_it_again_at_once(self, order):
        self.make_overdue(order)
        services.announce_overdue_orders()

        assert services.announce_overdue_orders() == 0

    def test_doubles_the_pause(self, order):
        self.make_overdue(order, age_seconds=120)
        services.announce_overdue_orders()

        order.refresh_from_db()
        pause = order.recheck_at - timezone.now()
        assert timedelta(seconds=110) < pause <= timedelta(seconds=121)

    def test_never_changes_the_status(self, order):
        self.make_overdue(order, age_seconds=30 * 24 * 3600)
        services.announce_overdue_orders()

        order.refresh_from_db()
        assert order.status == Order.Status.PENDING

    def test_leaves_a_settled_order_in_peace(self, order):
        self.make_overdue(order)
        Order.objects.update(status=Order.Status.REJECTED, settled_at=timezone.now())

        assert services.announce_overdue_orders() == 0

    def test_takes_no_more_than_its_limit_and_the_longest_waiting_first(self, accepted_order):
        services.place_orders([accepted_order() for _ in range(3)])
        OutgoingEvent.objects.all().delete()
        for order, age in zip(Order.objects.order_by("id"), (60, 180, 120), strict=True):
            self.make_overdue(order, age_seconds=age)

        assert services.announce_overdue_orders(limit=1) == 1
        assert announced() == [str(Order.objects.order_by("id")[1].id)]
