"""From the outbox to the broker: at least once, and nothing forgotten."""

import time
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID, uuid4

import msgspec
import pytest
from django.db import connection, transaction
from django.utils import timezone

from servicekit import correlation, failpoints
from servicekit.contracts.events import OrderCreated
from servicekit.correlation import Correlation
from servicekit.failpoints import FailpointError
from servicekit.messaging.publisher import ConfirmingPublisher, PublishingFailed
from servicekit.outbox import recording, relay
from servicekit.outbox.models import OutgoingEvent
from servicekit.outbox.relay import Relay, publish_recorded_events
from tests.servicekit.private_broker import eventually, unused_port

pytestmark = pytest.mark.django_db(transaction=True)

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PRODUCT_ID = UUID("0198c0de-0000-7000-8000-00000000000a")


def record(*order_ids: int) -> None:
    with transaction.atomic():
        recording.record_all(
            OrderCreated(order_id=order_id, product_id=PRODUCT_ID, quantity=1)
            for order_id in order_ids
        )


def waiting() -> list[str]:
    return [event.correlation_id for event in OutgoingEvent.objects.order_by("id")]


@pytest.fixture
def subscriber(broker) -> Iterator[str]:
    """A queue that wants `order.created`."""
    name = f"relay-{uuid4()}"
    broker.declare_queue(name)
    broker.bind(name, "order.exchange", "order.created")
    yield name
    broker.delete_queue(name)


def received(broker, subscriber: str, *, count: int) -> list[int]:
    messages = broker.take(subscriber, count=count)
    return [msgspec.json.decode(message.body)["orderId"] for message in messages]


class TestPublishRecordedEvents:
    def test_publishes_them_in_order_and_forgets_them(self, broker, publisher, subscriber):
        record(1, 2, 3)

        assert publish_recorded_events(publisher) == 3
        assert received(broker, subscriber, count=3) == [1, 2, 3]
        assert waiting() == []

    def test_says_in_the_properties_what_the_event_is(self, broker, publisher, subscriber):
        record(1)
        [event] = OutgoingEvent.objects.all()
        publish_recorded_events(publisher)

        [message] = broker.take(subscriber, count=1)
        assert message.properties["message_id"] == str(event.event_id)
        assert message.properties["type"] == "order.created"
        assert message.properties["correlation_id"] == "1"
        assert message.properties["delivery_mode"] == 2

    def test_says_in_the_headers_when_it_was_handed_over(self, broker, publisher, subscriber):
        record(1)
        before = time.time_ns() // 1_000_000
        publish_recorded_events(publisher)

        [message] = broker.take(subscriber, count=1)
        assert message.headers.keys() == {"timestamp_in_ms"}
        assert before <= message.headers["timestamp_in_ms"] <= time.time_ns() // 1_000_000

    def test_says_in_the_headers_which_request_each_goes_back_to(
        self, broker, publisher, subscriber
    ):
        sources = {"1": Correlation("me-1", TRACEPARENT), "2": Correlation("me-2")}
        with correlation.of_messages(sources):
            record(1, 2, 3)
        publish_recorded_events(publisher)

        headers = [message.headers for message in broker.take(subscriber, count=3)]
        assert [each.pop("timestamp_in_ms") > 0 for each in headers] == [True] * 3
        assert headers == [
            {"request_id": "me-1", "traceparent": TRACEPARENT}, {"request_id": "me-2"}, {},
        ]  # fmt: skip

    def test_takes_no_more_than_its_limit(self, publisher, subscriber):  # noqa: ARG002 - wants them
        record(1, 2, 3)

        assert publish_recorded_events(publisher, limit=2) == 2
        assert waiting() == ["3"]

    def test_returns_nothing_to_do(self, publisher):
        assert publish_recorded_events(publisher) == 0

    def test_keeps_what_nobody_wants_for_later(self, publisher):
        record(1)

        assert publish_recorded_events(publisher) == 1
        [event] = OutgoingEvent.objects.all()
        assert (event.attempts, event.last_outcome) == (1, "returned")
        assert event.available_at > timezone.now()
        assert publish_recorded_events(publisher) == 0

    def test_publishes_it_when_somebody_wants_it(self, broker, publisher, subscriber):
        broker.delete_queue(subscriber)
        record(1)
        publish_recorded_events(publisher)
        broker.declare_queue(subscriber)
        broker.bind(subscriber, "order.exchange", "order.created")
        OutgoingEvent.objects.update(available_at=timezone.now() - timedelta(seconds=1))
        publish_recorded_events(publisher)

        assert received(broker, subscriber, count=1) == [1]
        assert waiting() == []

    def test_keeps_what_a_queue_refuses(self, broker, publisher):
        name = f"full-{uuid4()}"
        broker.declare_queue(name, **{"x-max-length": 0, "x-overflow": "reject-publish"})
        broker.bind(name, "order.exchange", "order.created")
        record(1)
        publish_recorded_events(publisher)
        broker.delete_queue(name)

        assert OutgoingEvent.objects.get().last_outcome == "refused"

    def test_forgets_nothing_when_the_broker_is_away(self):
        record(1, 2)
        publisher = ConfirmingPublisher(f"amqp://a:b@127.0.0.1:{unused_port()}//")

        with pytest.raises(PublishingFailed):
            publish_recorded_events(publisher)
        assert waiting() == ["1", "2"]

    def test_forgets_nothing_when_the_confirm_is_lost(self, broker, line, subscriber):
        cable, url = line
        publisher = ConfirmingPublisher(url, confirm_timeout=0.3)
        record(1)
        publish_recorded_events(publisher)
        record(2)
        cable.fall_silent()
        with pytest.raises(PublishingFailed):
            publish_recorded_events(publisher)

        assert waiting() == ["2"]
        assert received(broker, subscriber, count=1) == [1]

    def test_publishes_again_under_the_same_id_after_a_crash(
        self, broker, publisher, subscriber, monkeypatch
    ):
        record(1)
        with monkeypatch.context() as patch:
            patch.setattr(failpoints, "_ACTIONS", {"outbox.after_confirm": "raise"})
            with pytest.raises(FailpointError):
                publish_recorded_events(publisher)
        publish_recorded_events(publisher)

        first, second = broker.take(subscriber, count=2)
        assert first.properties["message_id"] == second.properties["message_id"]
        assert waiting() == []

    def test_leaves_what_another_relay_has_in_hand(self, publisher, subscriber):  # noqa: ARG002 - wants them
        record(1, 2)
        other = connection.copy()
        try:
            other.set_autocommit(False)
            with other.cursor() as cursor:
                cursor.execute("SELECT id FROM outbox_event ORDER BY id LIMIT 1 FOR UPDATE")
            publish_recorded_events(publisher)

            assert waiting() == ["1"]
        finally:
            other.rollback()
            other.close()

    def test_does_not_see_what_is_not_committed(self, publisher, subscriber):  # noqa: ARG002 - wants them
        other = connection.copy()
        try:
            other.set_autocommit(False)
            with other.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO outbox_event"
                    " (event_id, exchange, routing_key, correlation_id, body)"
                    " VALUES (gen_random_uuid(), 'order.exchange', 'order.created', '7', '{}')"
                )
            # A later id that is committed earlier: a cursor on the sequence would skip the first.
            record(8)
            assert publish_recorded_events(publisher) == 1
            other.commit()

            assert publish_recorded_events(publisher) == 1
        finally:
            other.close()


class TestRelay:
    @pytest.fixture
    def running(self, broker, monkeypatch) -> Iterator[Relay]:
        # Only the bell can make it quick.
        monkeypatch.setattr(relay, "_LOOK_EVERY_SECONDS", 0.5)
        made = Relay(broker_url=broker.url)
        made.start()
        yield made
        made.stop()
        made.join(10)
        assert not made.is_alive()

    @pytest.mark.usefixtures("running")
    def test_publishes_what_is_committed_as_it_is_committed(self, broker, subscriber):
        for number in range(3):
            record(number)
            assert received(broker, subscriber, count=1) == [number]

        eventually(lambda: waiting() == [])

    @pytest.mark.usefixtures("running")
    def test_says_nothing_of_what_is_rolled_back(self, broker, subscriber):
        with transaction.atomic():
            recording.record_all([OrderCreated(order_id=1, product_id=PRODUCT_ID, quantity=1)])
            transaction.set_rollback(True)
        record(2)

        assert received(broker, subscriber, count=1) == [2]

    def test_goes_on_after_losing_the_database(self, broker, subscriber, running):
        record(1)
        assert received(broker, subscriber, count=1) == [1]
        # Not before it is forgotten, or it rightly comes again.
        eventually(lambda: waiting() == [])
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        record(2)

        assert received(broker, subscriber, count=1) == [2]
        assert running.is_alive()
