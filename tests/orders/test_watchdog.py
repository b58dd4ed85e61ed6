"""What looks after orders that something went wrong with."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from django.utils import timezone
from django_redis import get_redis_connection

from orders_project.orders import cache, services, watchdog
from orders_project.orders.commands import AcceptedOrder
from orders_project.orders.models import Order, OrderFigures
from orders_project.orders.representation import order_cancelled, order_created
from servicekit.database import figures
from servicekit.messaging.publisher import ConfirmingPublisher, PublishingFailed
from tests.orders.stock_news import cancelled, rejected, released, reserved, settle
from tests.servicekit.private_broker import VirtualHost

QUEUE = "announced"


@pytest.fixture
def publisher(broker: VirtualHost) -> Iterator[ConfirmingPublisher]:
    broker.declare_queue(QUEUE)
    for routing_key in ("order.created", "order.cancelled"):
        broker.bind(QUEUE, "order.exchange", routing_key)
    made = ConfirmingPublisher(broker.url)
    yield made
    made.close()
    broker.delete_queue(QUEUE)


@pytest.fixture
def announced(broker: VirtualHost) -> Callable[[], list[tuple[str, str]]]:
    """Return a function that takes what was published: routing keys and orders."""

    def take() -> list[tuple[str, str]]:
        return [
            (message.delivery_info["routing_key"], msgspec.json.decode(message.body)["orderId"])
            for message in broker.take_all(QUEUE)
        ]

    return take


def make_overdue(order: Order, *, age_seconds: int = 60) -> None:
    """Let time pass, for an order that waits for an answer."""
    created_at = timezone.now() - timedelta(seconds=age_seconds)
    Order.objects.filter(id=order.id).update(created_at=created_at)
    Order.objects.filter(id=order.id, recheck_at__isnull=False).update(
        recheck_at=created_at + timedelta(seconds=30)
    )


@pytest.mark.django_db
class TestAnnounceOverdueOrders:
    @pytest.mark.usefixtures("order")
    def test_leaves_a_fresh_order_in_peace(self, publisher, announced):
        assert services.announce_overdue_orders(publisher) == 0
        assert announced() == []

    def test_announces_one_that_has_waited_too_long_once_and_changes_nothing_of_it(
        self, order, publisher, broker
    ):
        make_overdue(order, age_seconds=30 * 24 * 3600)
        order.refresh_from_db()

        assert [services.announce_overdue_orders(publisher) for _ in range(2)] == [1, 0]
        [message] = broker.take_all(QUEUE)
        assert message.delivery_info["routing_key"] == "order.created"
        assert message.properties["message_id"] == str(order_created(order).event_id)
        assert message.body == order_created(order).to_json()
        order.refresh_from_db()
        assert order.status == Order.Status.PENDING

    def test_announces_one_that_was_stored_without_the_broker_at_once(
        self, accepted_order, publisher, announced
    ):
        accepted = accepted_order()
        services.place_orders([accepted], recheck_after_seconds=0)

        assert services.announce_overdue_orders(publisher) == 1
        assert announced() == [("order.created", str(accepted.id))]

    def test_says_it_again_half_a_minute_later(self, accepted_order, publisher):
        services.place_orders([accepted_order()], recheck_after_seconds=0)
        services.announce_overdue_orders(publisher)

        pause = Order.objects.get().recheck_at - timezone.now()
        assert timedelta(seconds=25) < pause <= timedelta(seconds=30)

    def test_doubles_the_pause(self, order, publisher):
        make_overdue(order, age_seconds=120)
        services.announce_overdue_orders(publisher)

        order.refresh_from_db()
        pause = order.recheck_at - timezone.now()
        assert timedelta(seconds=110) < pause <= timedelta(seconds=121)

    @pytest.mark.parametrize(
        ("is_cancelled", "outcome"),
        [*((False, one) for one in (reserved, rejected)),
         *((True, one) for one in (released, rejected, cancelled))],
    )  # fmt: skip
    def test_leaves_one_in_peace_whose_stock_is_settled(
        self, order, publisher, announced, is_cancelled, outcome
    ):
        if is_cancelled:
            services.cancel_order(order.id)
        settle(outcome(order))
        make_overdue(order)

        assert services.announce_overdue_orders(publisher) == 0
        assert announced() == []

    @pytest.mark.parametrize("was_confirmed", [True, False])
    def test_asks_again_for_the_stock_of_a_cancelled_order(
        self, order, publisher, broker, was_confirmed
    ):
        if was_confirmed:
            settle(reserved(order))
        services.cancel_order(order.id)
        order.refresh_from_db()
        make_overdue(order)

        assert services.announce_overdue_orders(publisher) == 1
        [message] = broker.take_all(QUEUE)
        event = order_cancelled(order)
        assert message.delivery_info["routing_key"] == "order.cancelled"
        assert message.properties["message_id"] == str(event.event_id)
        assert message.body == event.to_json()

    def test_leaves_a_cancelled_order_in_peace_for_half_a_minute(self, order, publisher):
        make_overdue(order)
        services.cancel_order(order.id)

        assert services.announce_overdue_orders(publisher) == 0

    def test_takes_no_more_than_its_limit_and_the_longest_waiting_first(
        self, accepted_order, publisher, announced
    ):
        services.place_orders([accepted_order() for _ in range(3)])
        for order, age in zip(Order.objects.order_by("id"), (60, 180, 120), strict=True):
            make_overdue(order, age_seconds=age)

        assert services.announce_overdue_orders(publisher, limit=1) == 1
        assert announced() == [("order.created", str(Order.objects.order_by("id")[1].id))]

    def test_has_those_due_at_once_that_it_could_not_announce(
        self, order, accepted_order, publisher, unused_broker_url, announced
    ):
        services.place_orders([accepted_order()])
        services.cancel_order(order.id)
        for each in Order.objects.all():
            make_overdue(each)

        with pytest.raises(PublishingFailed):
            services.announce_overdue_orders(ConfirmingPublisher(unused_broker_url))

        assert services.announce_overdue_orders(publisher) == 2
        assert sorted(key for key, _ in announced()) == ["order.cancelled", "order.created"]


def let_pass(seconds: float, *orders: AcceptedOrder) -> None:
    """Make the copies of orders as old as that."""
    keys = {f"order:{order.id}": time.time() - seconds for order in orders}
    get_redis_connection("default").zadd(cache._ACCEPTED, keys)


def is_remembered(order: AcceptedOrder) -> tuple[bool, bool]:
    """Whether there is a copy of the order, and an entry that leads to it."""
    redis = get_redis_connection("default")
    key = f"order:{order.id}"
    return redis.exists(key) == 1, redis.zscore(cache._ACCEPTED, key) is not None


@pytest.mark.django_db
class TestPlaceForgottenOrders:
    @pytest.fixture(autouse=True)
    def no_other_copies(self) -> None:
        """Nothing is left of what other tests have accepted."""
        get_redis_connection("default").delete(cache._ACCEPTED)

    def test_stores_an_order_whose_message_was_lost(self, accepted_order):
        order = accepted_order(quantity=3, total_price=2**63 - 1)
        cache.keep_copies([order])
        let_pass(31, order)

        assert watchdog.place_forgotten_orders() == 1

        stored = Order.objects.get()
        assert (stored.id, stored.product_id, stored.quantity) == (order.id, order.product_id, 3)
        assert (stored.total_price, stored.created_at) == (2**63 - 1, order.created_at)
        assert stored.status == Order.Status.PENDING
        # It is announced at once.
        assert [each.id for each in Order.objects.claim_overdue(10)] == [order.id]

    def test_leaves_one_alone_that_may_still_be_on_its_way(self, accepted_order):
        order = accepted_order()
        cache.keep_copies([order])
        let_pass(25, order)

        assert watchdog.place_forgotten_orders() == 0
        assert not Order.objects.exists()
        assert is_remembered(order) == (True, True)

    def test_drops_what_was_left_of_a_stored_order(self, accepted_order):
        # As when Redis was away while the worker stored it.
        order = accepted_order()
        services.place_orders([order])
        settle(reserved(order))
        cache.keep_copies([order])
        let_pass(31, order)

        watchdog.place_forgotten_orders()

        assert is_remembered(order) == (False, False)
        settled = Order.objects.get()
        assert (settled.status, settled.recheck_at) == (Order.Status.CONFIRMED, None)

    def test_drops_what_leads_to_no_copy_any_more(self, accepted_order):
        gone, there = accepted_order(), accepted_order()
        cache.keep_copies([gone, there])
        get_redis_connection("default").delete(f"order:{gone.id}")
        let_pass(31, gone, there)

        assert watchdog.place_forgotten_orders() == 1
        assert is_remembered(gone) == (False, False)
        assert [order.id for order in Order.objects.all()] == [there.id]

    def test_comes_to_an_end(self, accepted_order):
        orders = [accepted_order() for _ in range(5)]
        cache.keep_copies(orders)
        let_pass(31, *orders)

        counts = [watchdog.place_forgotten_orders(limit=2) for _ in range(4)]

        assert counts == [2, 2, 1, 0]
        assert Order.objects.count() == 5

    def test_takes_the_oldest_first(self, accepted_order):
        younger, older = accepted_order(), accepted_order()
        cache.keep_copies([younger, older])
        let_pass(31, younger)
        let_pass(60, older)
        watchdog.place_forgotten_orders(limit=1)

        assert Order.objects.get().id == older.id

    def test_does_nothing_without_redis(self, accepted_order, request):
        order = accepted_order()
        cache.keep_copies([order])
        let_pass(31, order)
        request.getfixturevalue("without_redis")

        assert watchdog.place_forgotten_orders() == 0

    @pytest.mark.parametrize("garbage", [b"", b"garbage", b"[]", b'{"id": 1}'])
    def test_is_not_stopped_by_a_copy_that_cannot_be_read(self, accepted_order, garbage):
        broken, whole = accepted_order(), accepted_order()
        cache.keep_copies([broken, whole])
        get_redis_connection("default").set(f"order:{broken.id}", garbage)
        let_pass(60, broken)
        let_pass(31, whole)

        watchdog.place_forgotten_orders(limit=2)

        assert [order.id for order in Order.objects.all()] == [whole.id]
        assert is_remembered(broken)[1] is False


class TestLoops:
    def test_do_all(self, settings, broker, monkeypatch):
        settings.BROKER_URL = broker.url
        done: list[Any] = []
        monkeypatch.setattr(services, "announce_overdue_orders", lambda by: done.append(type(by)))
        monkeypatch.setattr(watchdog, "place_forgotten_orders", lambda: done.append("forgotten"))
        monkeypatch.setattr(figures, "merge", done.append)

        for loop in watchdog.loops():
            loop._work()

        assert done == [ConfirmingPublisher, "forgotten", OrderFigures]


@pytest.mark.django_db
def test_the_ids_of_the_announcements_of_an_order_differ(order):
    # Or one would be taken for the other, and dropped.
    assert order_created(order).event_id != order_cancelled(order).event_id
