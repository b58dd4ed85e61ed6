"""From the outbox to the broker: at least once, and nothing forgotten."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone

from servicekit import correlation, failpoints
from servicekit.contracts.events import OrderCancelled, ProductUpdated
from servicekit.correlation import Correlation
from servicekit.database.loop import Loop
from servicekit.failpoints import FailpointError
from servicekit.messaging.envelope import OutgoingMessage
from servicekit.messaging.publisher import ConfirmingPublisher, Outcome, PublishingFailed
from servicekit.outbox import recording
from servicekit.outbox.models import OutgoingEvent
from servicekit.outbox.relay import BELL, publish_recorded_events, relay
from tests.servicekit.interleaving import in_every_order, lose_connections, run_in_order
from tests.servicekit.private_broker import eventually, unused_port

pytestmark = pytest.mark.django_db(transaction=True)

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PRODUCT_ID = UUID("0198c0de-0000-7000-8000-00000000000a")


def record(*order_ids: int) -> None:
    with transaction.atomic():
        recording.record_all(
            OrderCancelled(order_id=order_id, product_id=PRODUCT_ID, quantity=1)
            for order_id in order_ids
        )


def waiting() -> list[str]:
    return [event.correlation_id for event in OutgoingEvent.objects.order_by("id")]


def end_leases() -> None:
    """Let the time pass that a relay has events for, and the pauses of those that wait."""
    OutgoingEvent.objects.update(available_at=timezone.now() - timedelta(seconds=1))


@contextlib.contextmanager
def another_connection() -> Iterator[Any]:
    """A cursor in a transaction of its own, as another process would have it."""
    other = connection.copy()
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            yield cursor
    finally:
        other.close()


@pytest.fixture
def subscriber(broker) -> Iterator[str]:
    """A queue that wants `order.cancelled`."""
    name = f"relay-{uuid4()}"
    broker.declare_queue(name)
    broker.bind(name, "order.exchange", "order.cancelled")
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
        assert message.properties["type"] == "order.cancelled"
        assert message.properties["correlation_id"] == "1"
        assert message.properties["delivery_mode"] == 2

    def test_says_in_the_headers_when_each_was_handed_over_and_of_which_request_it_is(
        self, broker, publisher, subscriber
    ):
        with correlation.of_request(Correlation("me-1", TRACEPARENT)):
            record(1)
        with correlation.of_request(Correlation("me-2")):
            record(2)
        record(3)
        before = time.time_ns() // 1_000_000
        publish_recorded_events(publisher)

        headers = [message.headers for message in broker.take(subscriber, count=3)]
        now = time.time_ns() // 1_000_000
        assert all(before <= int(each.pop("timestamp_in_ms")) <= now for each in headers)
        assert headers == [
            {"request_id": "me-1", "traceparent": TRACEPARENT}, {"request_id": "me-2"}, {},
        ]  # fmt: skip

    def test_takes_no_more_than_its_limit(self, publisher, subscriber):  # noqa: ARG002 - wants them
        record(1, 2, 3)

        assert publish_recorded_events(publisher, limit=2) == 2
        assert waiting() == ["3"]

    def test_publishes_it_when_somebody_wants_it(self, broker, publisher, subscriber):
        broker.delete_queue(subscriber)
        record(1)
        publish_recorded_events(publisher)
        broker.declare_queue(subscriber)
        broker.bind(subscriber, "order.exchange", "order.cancelled")
        end_leases()
        publish_recorded_events(publisher)

        assert received(broker, subscriber, count=1) == [1]
        assert waiting() == []

    def test_keeps_what_a_queue_refuses(self, broker, publisher):
        name = f"full-{uuid4()}"
        broker.declare_queue(name, **{"x-max-length": 0, "x-overflow": "reject-publish"})
        broker.bind(name, "order.exchange", "order.cancelled")
        record(1)
        publish_recorded_events(publisher)
        broker.delete_queue(name)

        assert OutgoingEvent.objects.get().last_outcome == "refused"

    def test_forgets_nothing_without_the_broker_and_does_not_wait_when_it_is_back(
        self, broker, publisher, subscriber
    ):
        record(1, 2)
        away = ConfirmingPublisher(f"amqp://a:b@127.0.0.1:{unused_port()}//")
        with pytest.raises(PublishingFailed):
            publish_recorded_events(away)
        assert waiting() == ["1", "2"]

        assert publish_recorded_events(publisher) == 2
        assert received(broker, subscriber, count=2) == [1, 2]

    def test_forgets_nothing_when_the_confirm_is_lost(self, broker, line, subscriber):
        publisher = ConfirmingPublisher(line.url, confirm_timeout=0.3)
        record(1)
        publish_recorded_events(publisher)
        record(2)
        line.blackhole()
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
        # Nobody else has it as long as the one that died might still be publishing it.
        assert publish_recorded_events(publisher) == 0
        end_leases()
        publish_recorded_events(publisher)

        first, second = broker.take(subscriber, count=2)
        assert first.properties["message_id"] == second.properties["message_id"]
        assert waiting() == []

    def test_leaves_what_another_relay_is_about_to_claim(self, publisher, subscriber):  # noqa: ARG002 - wants them
        record(1, 2)
        with another_connection() as cursor:
            cursor.execute("SELECT id FROM outbox_event ORDER BY id LIMIT 1 FOR UPDATE")
            publish_recorded_events(publisher)

            assert waiting() == ["1"]

    def test_leaves_what_another_relay_has_claimed_until_its_lease_ends(
        self, broker, publisher, subscriber
    ):
        record(1, 2)
        [claimed] = OutgoingEvent.objects.claim(1)
        assert publish_recorded_events(publisher) == 1
        assert waiting() == [claimed.correlation_id] == ["1"]
        lease = OutgoingEvent.objects.get().available_at - timezone.now()
        # Longer than connecting and every confirm may take.
        assert timedelta(seconds=10) < lease <= timedelta(seconds=30)

        end_leases()
        assert publish_recorded_events(publisher) == 1
        assert received(broker, subscriber, count=2) == [2, 1]

    def test_leaves_what_a_relay_has_or_is_about_to_have_however_much_it_is_wanted_now(self):
        record(1, 2)
        OutgoingEvent.objects.claim(1)
        claimed, pausing = OutgoingEvent.objects.order_by("id")
        OutgoingEvent.objects.filter(id=pausing.id).update(
            available_at=timezone.now() + timedelta(minutes=5)
        )
        with another_connection() as cursor:
            cursor.execute("SELECT id FROM outbox_event WHERE id = %s FOR UPDATE", [pausing.id])
            assert OutgoingEvent.objects.try_now([claimed.id, pausing.id]) == set()
            cursor.execute("COMMIT")

        assert OutgoingEvent.objects.try_now([claimed.id, pausing.id]) == {pausing.id}
        assert OutgoingEvent.objects.get(id=claimed.id).available_at == claimed.available_at

    def test_has_no_transaction_open_while_it_waits_for_the_broker(self):
        class Looking(ConfirmingPublisher):
            """Looks at the database while the broker would be waited for."""

            def publish(self, messages: Sequence[OutgoingMessage]) -> list[Outcome]:
                with another_connection() as cursor:
                    cursor.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", [ours])
                    states.extend(state for (state,) in cursor)
                    cursor.execute("SELECT id FROM outbox_event FOR UPDATE NOWAIT")
                return [Outcome.CONFIRMED] * len(messages)

        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            [ours] = cursor.fetchone()
        states: list[str] = []
        record(1, 2)
        publish_recorded_events(Looking(""))

        assert states == ["idle"]
        assert waiting() == []

    def test_does_not_see_what_is_not_committed(self, publisher, subscriber):  # noqa: ARG002 - wants them
        with another_connection() as cursor:
            cursor.execute(
                "INSERT INTO outbox_event"
                " (event_id, exchange, routing_key, correlation_id, body)"
                " VALUES (gen_random_uuid(), 'order.exchange', 'order.cancelled', '7', '{}')"
            )
            # A later id that is committed earlier: a cursor on the sequence would skip the first.
            record(8)
            assert publish_recorded_events(publisher) == 1
            cursor.execute("COMMIT")

            assert publish_recorded_events(publisher) == 1


def record_unwanted(count: int) -> None:
    """Record events that no queue wants."""
    with transaction.atomic():
        recording.record_all(
            ProductUpdated(
                id=PRODUCT_ID, name="Lamp", price=1, qty=1, created_at="", version=version
            )
            for version in range(1, count + 1)
        )


class TestEventsThatNobodyWants:
    def test_delay_no_other_of_their_batch(self, broker, publisher, subscriber):
        record_unwanted(1)
        record(1)
        record_unwanted(1)

        assert publish_recorded_events(publisher) == 3
        assert received(broker, subscriber, count=1) == [1]
        assert waiting() == [str(PRODUCT_ID)] * 2

    def test_are_offered_again_after_pauses_that_grow_to_an_end(self, publisher):
        record_unwanted(1)
        pauses = []
        for _ in range(12):
            assert [publish_recorded_events(publisher) for _ in range(2)] == [1, 0]
            event = OutgoingEvent.objects.get()
            pauses.append(round((event.available_at - timezone.now()).total_seconds()))
            end_leases()

        assert (event.attempts, event.last_outcome) == (12, "returned")
        assert pauses[:4] == [5, 10, 20, 40]
        assert pauses[-2:] == [300, 300]
        assert pauses == sorted(pauses)

    def test_delay_no_other_however_many_they_are(self, broker, publisher, subscriber):
        started = timezone.now()
        record_unwanted(6_500)
        for _ in range(13):
            assert publish_recorded_events(publisher) == 500
        pause = timedelta(seconds=5)
        assert not OutgoingEvent.objects.filter(available_at__lt=started + pause).exists()
        assert set(OutgoingEvent.objects.values_list("attempts", flat=True)) == {1}

        # However slow this machine is, none of them is due.
        OutgoingEvent.objects.update(available_at=timezone.now() + pause)
        record(1)
        assert publish_recorded_events(publisher) == 1
        assert received(broker, subscriber, count=1) == [1]
        assert OutgoingEvent.objects.count() == 6_500

    def test_cost_no_more_to_put_off_than_to_publish(self, publisher, django_assert_num_queries):
        record_unwanted(500)

        # Two and their transaction to claim them, another that deletes none, and one for all that
        # are put off.
        with django_assert_num_queries(7):
            publish_recorded_events(publisher)

    def test_are_put_off_each_by_its_own_attempts(self, publisher):
        record_unwanted(3)
        first, second, _ = OutgoingEvent.objects.order_by("id")
        OutgoingEvent.objects.filter(id=first.id).update(attempts=2)
        OutgoingEvent.objects.filter(id=second.id).update(attempts=20)
        publish_recorded_events(publisher)

        now = timezone.now()
        left = [
            (event.attempts, round((event.available_at - now).total_seconds()))
            for event in OutgoingEvent.objects.order_by("id")
        ]
        assert left == [(3, 20), (21, 300), (1, 5)]


class TestRelay:
    @pytest.fixture
    def running(self, broker) -> Iterator[Loop]:
        made = relay(broker.url)
        # Only the bell can make it quick.
        made._every_seconds = 60.0
        made.start()
        yield made
        made.stop()

        def has_ended() -> bool:
            with connection.cursor() as cursor:
                cursor.execute(f"NOTIFY {BELL}")
            made.join(0.05)
            return not made.is_alive()

        eventually(has_ended)
        made._work.args[0].close()

    @pytest.mark.usefixtures("running")
    def test_publishes_what_is_committed_as_it_is_committed(self, broker, subscriber):
        for number in range(3):
            record(number)
            assert received(broker, subscriber, count=1) == [number]

        eventually(lambda: waiting() == [])

    @pytest.mark.usefixtures("running")
    def test_says_nothing_of_what_is_rolled_back(self, broker, subscriber):
        with transaction.atomic():
            recording.record_all([OrderCancelled(order_id=1, product_id=PRODUCT_ID, quantity=1)])
            transaction.set_rollback(True)
        record(2)

        assert received(broker, subscriber, count=1) == [2]

    def test_hears_of_what_is_to_be_tried_now(self, publisher, subscriber):  # noqa: ARG002 - wants it
        record(1)
        OutgoingEvent.objects.update(available_at=timezone.now() + timedelta(minutes=5))
        [event] = OutgoingEvent.objects.all()
        with another_connection() as cursor:
            cursor.execute(f"LISTEN {BELL}; COMMIT")
            assert OutgoingEvent.objects.try_now([event.id]) == {event.id}

            assert list(cursor.connection.notifies(timeout=20, stop_after=1))
        assert publish_recorded_events(publisher) == 1

    def test_goes_on_after_losing_the_database(self, broker, subscriber, running):
        record(1)
        assert received(broker, subscriber, count=1) == [1]
        # Not before it is forgotten, or it rightly comes again.
        eventually(lambda: waiting() == [])
        lose_connections()
        record(2)

        assert received(broker, subscriber, count=1) == [2]
        assert running.is_alive()


class TestTwoRelaysInEveryOrderOfStatements:
    @staticmethod
    def race(choices: Sequence[int]) -> list[int]:
        record(1, 2)
        sent: list[str] = []

        class Publisher:
            @staticmethod
            def publish(messages: Sequence[OutgoingMessage]) -> list[Outcome]:
                sent.extend(str(message.correlation_id) for message in messages)
                return [Outcome.CONFIRMED] * len(messages)

        options = run_in_order([partial(publish_recorded_events, Publisher())] * 2, choices)

        assert waiting() == []
        assert sorted(sent) == ["1", "2"], "both relays had it"
        return options

    def test_publish_each_event_once(self):
        assert in_every_order(self.race) > 5

    def test_do_not_without_the_row_lock(self, monkeypatch):
        monkeypatch.setattr(QuerySet, "select_for_update", lambda query, **_: query.all())

        with pytest.raises(AssertionError, match="both relays had it"):
            in_every_order(self.race)
