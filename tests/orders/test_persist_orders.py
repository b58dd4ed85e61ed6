"""The task of the orders worker: many messages at once, stored and then announced."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import amqp
import msgspec
import pytest
from django.db import OperationalError

from celery_workers.orders.tasks import persist_orders
from celery_workers.policies import TASKS
from orders_project.orders import services
from orders_project.orders.commands import AcceptedOrder, PersistOrders
from orders_project.orders.models import Order
from orders_project.orders.representation import order_created
from orders_project.orders.subscriptions import PERSIST_ORDERS, place_and_announce
from servicekit.failpoints import FailpointError
from servicekit.messaging.consumer import Inbox, Policy
from servicekit.messaging.envelope import Received
from servicekit.messaging.publisher import ConfirmingPublisher
from servicekit.messaging.topology import dead_letter_queue_name
from tests.orders.ordering import a_task
from tests.orders.stock_news import rejected, reserved, settle
from tests.servicekit.private_broker import VirtualHost, eventually

pytestmark = pytest.mark.django_db(transaction=True)

ANNOUNCED = "announced"


def handle(*batches: list[AcceptedOrder]) -> list[tuple[str, bytes]]:
    """Have the worker store batches, each from one message; return ids and bodies of answers."""
    handled = place_and_announce([Received(PersistOrders(orders=batch)) for batch in batches])
    assert handled.unprocessable == ()
    return [(answer.message_id, answer.body) for answer in handled.answers]


def announcements(*orders: AcceptedOrder) -> list[tuple[str, bytes]]:
    events = [order_created(order) for order in orders]
    return [(str(event.event_id), event.to_json()) for event in events]


class TestPlaceAndAnnounce:
    def test_answers_with_the_announcements_of_all_messages_in_order(self, accepted_order):
        first, second, third = (accepted_order() for _ in range(3))

        assert handle([first, second], [third]) == announcements(first, second, third)
        assert Order.objects.count() == 3

    def test_takes_an_order_once_that_is_in_two_messages_of_a_batch(self, accepted_order):
        order, other = accepted_order(), accepted_order()

        for _ in range(2):
            assert handle([order, other], [order]) == announcements(order, other)
        assert Order.objects.count() == 2

    def test_says_again_what_is_undecided_under_the_same_message_id(self, accepted_order):
        orders = [accepted_order() for _ in range(3)]
        once = handle(orders[:1])

        assert handle(orders) == [*once, *announcements(*orders[1:])]

    @pytest.mark.parametrize("decide", [reserved, rejected])
    def test_says_nothing_again_of_what_is_decided(self, accepted_order, decide):
        decided, undecided = accepted_order(), accepted_order()
        handle([decided, undecided])
        settle(decide(decided))

        assert handle([decided, undecided]) == announcements(undecided)
        assert Order.objects.get(id=decided.id).status != Order.Status.PENDING

    def test_says_nothing_again_of_what_is_cancelled(self, accepted_order):
        order = accepted_order()
        handle([order])
        services.cancel_order(order.id)

        assert handle([order]) == []

    def test_announces_what_the_web_process_has_stored_by_itself(self, accepted_order):
        order = accepted_order()
        services.place_orders([order], recheck_after_seconds=0)

        assert handle([order]) == announcements(order)

    def test_answers_with_persistent_json_events_of_the_exchange_of_orders(self, accepted_order):
        [answer] = place_and_announce([Received(PersistOrders(orders=[accepted_order()]))]).answers

        assert (answer.exchange, answer.routing_key) == ("order.exchange", "order.created")
        assert answer.type == "order.created"
        assert answer.content_type == "application/json"


class TestPersistOrders:
    def test_stores_them_when_it_is_called_as_any_task(self, accepted_order):
        order = accepted_order()
        persist_orders(**msgspec.to_builtins(PersistOrders(orders=[order])))

        assert Order.objects.get().id == order.id


class Pump:
    """A connection to the broker, drained as Celery's is."""

    is_stopping = False

    def __init__(self, connection: amqp.Connection) -> None:
        self._connection = connection

    def drain(self, timeout_seconds: float) -> bool:
        try:
            self._connection.drain_events(timeout=timeout_seconds)
        except TimeoutError:
            return False
        return True


@pytest.fixture
def queues(broker) -> Iterator[VirtualHost]:
    """The queue of the task, that of what is dead-lettered, and one that hears of announcements."""
    names = (PersistOrders.queue, dead_letter_queue_name(PersistOrders.queue), ANNOUNCED)
    for name in names:
        broker.declare_queue(name)
    broker.bind(ANNOUNCED, "order.exchange", "order.created")
    yield broker
    for name in names:
        broker.delete_queue(name)


@pytest.fixture
def hand_over(queues) -> Iterator[Callable[..., None]]:
    """Return a function that sends orders to the worker, a message for each batch."""
    publisher = ConfirmingPublisher(queues.url)

    def send(*batches: list[AcceptedOrder]) -> None:
        publisher.publish([a_task(batch) for batch in batches])

    yield send
    publisher.close()


@pytest.fixture
def work(queues) -> Callable[[], None]:
    """Return a function that is the worker, from its start until its queue is empty."""

    def run() -> None:
        publisher = ConfirmingPublisher(queues.url)
        with queues.channel() as channel:
            pump: Any = Pump(channel.connection)
            channel.auto_decode = False
            policy = Policy(is_held=TASKS.is_held)
            inbox = Inbox(PERSIST_ORDERS, pump=pump, publisher=publisher, policy=policy)
            channel.basic_consume(PersistOrders.queue, callback=inbox.put)
            try:
                while pump.drain(0.3) or len(inbox):
                    if len(inbox):
                        inbox.process()
            finally:
                publisher.close()

    return run


class TestTheWorker:
    @staticmethod
    def announced(broker: VirtualHost) -> list[tuple[str, bytes]]:
        messages = broker.take_all(ANNOUNCED)
        return [(each.properties["message_id"], bytes(each.body)) for each in messages]

    def test_stores_announces_and_acknowledges(self, accepted_order, broker, hand_over, work):
        orders = [accepted_order() for _ in range(3)]
        hand_over(orders[:2], orders[2:])
        work()

        assert self.announced(broker) == announcements(*orders)
        assert Order.objects.count() == 3
        eventually(lambda: broker.count(PersistOrders.queue) == 0)

    @pytest.mark.parametrize(
        "at", ["orders.place.before_commit", "orders.place.after_commit", "consumer.after_answers"]
    )
    def test_that_ends_too_early_leaves_it_to_the_next(
        self, accepted_order, broker, hand_over, work, *, monkeypatch, at
    ):
        orders = [accepted_order() for _ in range(2)]
        hand_over(orders)
        # As a killed process: nothing is acknowledged, and nothing is caught.
        dying = SimpleNamespace(stopped=False)

        def die(name: str) -> None:
            if name == at and not dying.stopped:
                dying.stopped = True
                raise KeyboardInterrupt

        for module in ("orders_project.orders.services", "servicekit.messaging.consumer"):
            monkeypatch.setattr(f"{module}.failpoint", die)
        with pytest.raises(KeyboardInterrupt):
            work()
        eventually(lambda: broker.count(PersistOrders.queue) == 1)
        work()

        # Twice under the same ids is no harm; not at all would be.
        assert set(self.announced(broker)) == set(announcements(*orders))
        assert Order.objects.count() == 2
        assert broker.count(PersistOrders.queue) == 0

    def test_parks_an_order_that_can_never_be_stored_and_stores_the_others(
        self, accepted_order, broker, hand_over, work, monkeypatch
    ):
        good, poison = accepted_order(), accepted_order()
        place = services.place_orders

        def choke(orders: list[AcceptedOrder], **options: Any) -> Any:
            if any(order.id == poison.id for order in orders):
                raise FailpointError("poison")
            return place(orders, **options)

        monkeypatch.setattr(services, "place_orders", choke)
        hand_over([good], [poison])
        work()

        assert self.announced(broker) == announcements(good)
        [letter] = broker.take(dead_letter_queue_name(PersistOrders.queue), count=1)
        assert str(poison.id).encode() in letter.body

    def test_waits_for_a_database_that_is_away(
        self, accepted_order, broker, hand_over, work, monkeypatch
    ):
        order = accepted_order()
        place, failures = services.place_orders, iter([OperationalError("away")])

        def away_once(orders: list[AcceptedOrder], **options: Any) -> Any:
            for failure in failures:
                raise failure
            return place(orders, **options)

        monkeypatch.setattr(services, "place_orders", away_once)
        hand_over([order])
        work()

        assert self.announced(broker) == announcements(order)
        assert broker.count(dead_letter_queue_name(PersistOrders.queue)) == 0
