"""Storing accepted orders, and saying which of them are to be announced."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import msgspec
import pytest
from django.db import connection, transaction
from django.utils import timezone

from orders_project.orders import cache, services
from orders_project.orders.commands import AcceptedOrder
from orders_project.orders.models import RECHECK_AFTER_SECONDS, Order
from orders_project.orders.representation import order_created
from servicekit import failpoints
from servicekit.contracts.events import OrderCreated
from servicekit.failpoints import FailpointError, failpoint
from servicekit.outbox.models import OutgoingEvent
from servicekit.timestamps import rfc3339


def ids(events: Sequence[OrderCreated]) -> list[str]:
    return [event.order_id for event in events]


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

    def test_returns_them_in_the_order_of_acceptance(self, accepted_order):
        # Who came first has the first claim to the last unit, also when it is said again.
        orders = [accepted_order() for _ in range(20)]
        accepted = [orders[n * 7 % 20] for n in range(20)]
        services.place_orders(orders[10:])

        for _ in range(2):
            assert ids(services.place_orders(accepted)) == [str(order.id) for order in accepted]

    @pytest.mark.parametrize("is_one_batch", [True, False])
    def test_takes_the_first_of_two_that_differ(self, accepted_order, is_one_batch):
        # Two attempts with one Idempotency-Key: the batch is in the order of their acceptance.
        first = accepted_order(total_price=10)
        second = msgspec.structs.replace(first, total_price=99)
        for batch in [[first, second]] if is_one_batch else [[first], [second]]:
            [event] = services.place_orders(batch)

        assert Order.objects.get().total_price == event.total_price == 10

    def test_announces_the_five_fields_that_existing_consumers_read(self, accepted_order):
        order = accepted_order()
        [event] = services.place_orders([order])

        assert (event.exchange, event.routing_key) == ("order.exchange", "order.created")
        assert msgspec.json.decode(event.to_json()) == {
            "orderId": str(order.id), "productId": str(order.product_id), "quantity": 2,
            "totalPrice": 380_000, "createdAt": rfc3339(order.created_at),
        }  # fmt: skip
        # The caller's message is what guarantees the announcement.
        assert not OutgoingEvent.objects.exists()

    def test_has_the_watchdog_ask_half_a_minute_later(self, accepted_order):
        services.place_orders([accepted_order()])

        seconds = (Order.objects.get().recheck_at - timezone.now()).total_seconds()
        assert RECHECK_AFTER_SECONDS - 5 < seconds <= RECHECK_AFTER_SECONDS

    def test_does_not_put_off_an_order_that_is_due(self, accepted_order):
        order = accepted_order()
        services.place_orders([order], recheck_after_seconds=0)
        services.place_orders([order])

        assert Order.objects.get().recheck_at <= timezone.now()

    def test_forgets_the_copy_that_bridged_the_time_until_now(self, accepted_order):
        order = accepted_order()
        assert cache.keep_copies([order])
        services.place_orders([order])

        assert cache.get_accepted(order.id) is None

    def test_does_nothing_for_an_empty_batch(self):
        assert services.place_orders([]) == []

    @pytest.mark.usefixtures("without_redis")
    def test_needs_no_redis(self, accepted_order):
        order = accepted_order()

        assert ids(services.place_orders([order])) == [str(order.id)]


@pytest.mark.django_db(transaction=True)
class TestPlaceOrdersTwiceAtOnce:
    def test_stores_every_order_once_and_forgets_to_announce_none(self, accepted_order):
        # The worker and the web process, each with the same batch, in different order.
        orders = [accepted_order() for _ in range(20)]

        def place(batch: Sequence[AcceptedOrder]) -> list[OrderCreated]:
            try:
                return services.place_orders(batch)
            finally:
                connection.close()

        with ThreadPoolExecutor(4) as threads:
            events = list(threads.map(place, [orders, orders[::-1]] * 4))

        everything = sorted(str(order.id) for order in orders)
        assert Order.objects.count() == 20
        # Whoever dies before it has announced them, the others have.
        assert [sorted(ids(each)) for each in events] == [everything] * 8
        assert len({event.event_id for each in events for event in each}) == 20


def store_and_announce_what_is_new(orders: Sequence[AcceptedOrder]) -> list[OrderCreated]:
    """Announce what this call has stored, and nothing else: what goes without saying elsewhere."""
    with transaction.atomic():
        new = Order.objects.insert_new(orders, recheck_after_seconds=30)
    failpoint("between")
    return [order_created(order) for order in orders if order.id in new]


@pytest.mark.django_db(transaction=True)
class TestACrashWhilePlacingOrders:
    """After a crash the batch is delivered again, as the broker does with what is not acked."""

    @staticmethod
    def crash_and_deliver_again(monkeypatch, place, orders, *, at: str) -> list[OrderCreated]:
        with monkeypatch.context() as patch:
            patch.setattr(failpoints, "_ACTIONS", {at: "raise"})
            with pytest.raises(FailpointError):
                place(orders)
        return place(orders)

    def test_does_lose_the_event_of_what_is_not_new_any_more(self, accepted_order, monkeypatch):
        # The negative control: the order is stored, is not new the second time, and so nobody
        # hears of it. If this fails, the test below passes for the wrong reason.
        order = accepted_order()
        events = self.crash_and_deliver_again(
            monkeypatch, store_and_announce_what_is_new, [order], at="between"
        )

        assert Order.objects.count() == 1
        assert events == []

    @pytest.mark.parametrize("place_in_code", ["before_commit", "after_commit"])
    def test_never_loses_ours(self, accepted_order, monkeypatch, place_in_code):
        order = accepted_order()
        events = self.crash_and_deliver_again(
            monkeypatch, services.place_orders, [order], at=f"orders.place.{place_in_code}"
        )

        assert Order.objects.count() == 1
        assert ids(events) == [str(order.id)]

    def test_leaves_no_order_and_keeps_the_copy_when_it_comes_before_the_commit(
        self, accepted_order, monkeypatch
    ):
        order = accepted_order()
        cache.keep_copies([order])
        monkeypatch.setattr(failpoints, "_ACTIONS", {"orders.place.before_commit": "raise"})
        with pytest.raises(FailpointError):
            services.place_orders([order])

        assert not Order.objects.exists()
        assert cache.get_accepted(order.id) is not None


@pytest.mark.django_db(transaction=True)
class TestAnAnnouncementThatNoQueueTakes:
    def test_is_repeated_soon(self, accepted_order):
        order = accepted_order()
        services.place_orders([order])

        services.recheck_soon([str(order.id)])

        pause = Order.objects.get(id=order.id).recheck_at - timezone.now()
        assert timedelta(seconds=3) < pause <= timedelta(seconds=5)
