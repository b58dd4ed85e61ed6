"""Batch consumers on a real broker: applied, dead-lettered or held, and nothing in between."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import amqp
import msgspec
import pytest
from django.db import (
    DataError,
    IntegrityError,
    InternalError,
    OperationalError,
    ProgrammingError,
    connection,
)
from prometheus_client import REGISTRY

from celery_workers.policies import is_trouble_of_ours
from servicekit.contracts.events import OrderCreated, StockDecided, StockReleased
from servicekit.correlation import Correlation
from servicekit.messaging import consumer
from servicekit.messaging.backoff import Backoff
from servicekit.messaging.consumer import (
    REASON_HEADER,
    ConsumerThread,
    Handled,
    Inbox,
    Policy,
    Subscription,
    Unprocessable,
)
from servicekit.messaging.envelope import OutgoingMessage, Received
from servicekit.messaging.publisher import ConfirmingPublisher, Outcome, PublishingFailed
from servicekit.messaging.topology import dead_letter_queue_name
from tests.servicekit.private_broker import VirtualHost, eventually

pytestmark = pytest.mark.usefixtures("impatient")

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PRODUCT_ID = UUID("0198c0de-0000-7000-8000-00000000000a")


class DatabaseAway(Exception):
    """What is waited out."""


def be_away(_batch: object) -> None:
    raise DatabaseAway


def refuse(order_id: int, batch: Sequence[Any]) -> list[Unprocessable]:
    return [Unprocessable(each, "a contradiction") for each in batch if each.order_id == order_id]


class Shop:
    """Applies batches, and does with each what the test wants."""

    def __init__(self) -> None:
        self.received: list[Received[Any]] = []
        self.batches: list[list[Any]] = []
        self.started_at: list[float] = []
        self.attempts = 0
        self.trouble: Callable[[Sequence[Any]], object] = lambda _batch: None
        self.answer: Callable[[Any], OutgoingMessage] | None = None

    @property
    def applied(self) -> list[object]:
        """The order ids whose effect is committed."""
        return [event.order_id for batch in self.batches for event in batch]

    def handle(self, batch: Sequence[Received[Any]]) -> Handled:
        self.started_at.append(time.monotonic())
        self.attempts += 1
        events = [each.event for each in batch]
        refused = self.trouble(events)
        self.received += batch
        self.batches.append(events)
        return Handled(
            [self.answer(event) for event in events] if self.answer else [],
            refused if isinstance(refused, list) else [],
        )


class Post:
    """A queue bound to an exchange, and the consumers on it."""

    def __init__(self, broker: VirtualHost, events: tuple[Any, ...], shop: Shop) -> None:
        self.queue = f"consumer-{uuid4()}"
        self.dead = dead_letter_queue_name(self.queue)
        self._broker = broker
        self.subscription = Subscription(self.queue, events, shop.handle)
        self._threads: list[ConsumerThread] = []

    def open(
        self, *, url: str = "", heartbeat_seconds: int = 30, beside: "Post | None" = None,
        is_held: Callable[[Exception], bool] = lambda error: isinstance(error, DatabaseAway),
        **policy: Any,
    ) -> ConsumerThread:  # fmt: skip
        """Consume; together with another queue, in one thread, if there is one beside."""
        thread = ConsumerThread(
            self.queue,
            [self.subscription, *([beside.subscription] if beside else [])],
            broker_url=url or self._broker.url,
            policy=Policy(is_held=is_held, **policy),
            heartbeat_seconds=heartbeat_seconds,
        )
        self._threads.append(thread)
        thread.start()
        eventually(lambda: thread.is_consuming)
        return thread

    def close(self) -> None:
        """End the consumers. What they have in hand goes back."""
        for thread in self._threads:
            thread.stop()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._threads.clear()

    def send(self, *bodies: bytes, exchange: str = "", key: str = "", **properties: Any) -> None:
        with self._broker.channel() as channel:
            for body in bodies:
                channel.basic_publish(amqp.Message(body, **properties), exchange, key or self.queue)

    def is_done(self) -> bool:
        """Whether nothing waits, neither in the queue nor in a consumer's hands."""
        self.close()
        with self._broker.channel() as channel:
            look = partial(channel.queue_declare, self.queue, passive=True)
            # Only then it has taken back what they had in hand.
            eventually(lambda: look().consumer_count == 0)
            return look().message_count == 0

    def has_dead_letters(self) -> bool:
        return self._broker.count(self.dead) > 0

    def dead_letters(self) -> list[Any]:
        return self._broker.take_all(self.dead)


def an_order(order_id: int = 1, quantity: Any = 1) -> bytes:
    return msgspec.json.encode({"orderId": order_id, "productId": PRODUCT_ID, "quantity": quantity})


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def failing_publisher(monkeypatch) -> None:
    """What is published first, and once more, does not reach the broker."""
    publish = ConfirmingPublisher.publish
    failures = iter([True, True])

    def fail_twice(
        publisher: ConfirmingPublisher, messages: Sequence[OutgoingMessage]
    ) -> list[Outcome]:
        if next(failures, False):
            raise PublishingFailed("away", maybe_published=True)
        return publish(publisher, messages)

    monkeypatch.setattr(ConfirmingPublisher, "publish", fail_twice)


@pytest.fixture
def open_post(broker) -> Iterator[Callable[..., Post]]:
    """Return a function that makes a queue of its own."""
    opened: list[Post] = []

    def open_for(shop: Shop, *events: Any) -> Post:
        opened.append(Post(broker, events, shop))
        return opened[-1]

    yield open_for
    for post in opened:
        post.close()
        broker.delete_queue(post.queue)
        broker.delete_queue(post.dead)


@pytest.fixture
def post(open_post, shop) -> Post:
    return open_post(shop, OrderCreated)


@pytest.fixture
def backlog(post) -> Callable[..., None]:
    """Return a function that lets messages wait before the first consumer comes."""

    def wait(*bodies: bytes) -> None:
        post.open()
        post.close()
        post.send(*bodies)

    return wait


class TestApplying:
    def test_happens_once_per_message_and_then_it_is_acknowledged(self, post, shop):
        post.open()
        post.send(*(an_order(number) for number in range(10)))
        eventually(lambda: len(shop.applied) == 10)

        assert post.is_done()
        assert shop.applied == list(range(10))

    def test_takes_together_what_waits_and_no_more_than_the_limit(self, post, shop, backlog):
        backlog(*(an_order(number) for number in range(100)))
        post.open(batch_limit=10)
        eventually(lambda: len(shop.applied) == 100)

        assert shop.applied == list(range(100))
        assert len(shop.batches) < 20
        assert max(len(batch) for batch in shop.batches) <= 10

    def test_comes_before_the_acknowledgement(self, post, shop):
        is_applied, may_commit = threading.Event(), threading.Event()

        def hold(_batch: object) -> None:
            is_applied.set()
            may_commit.wait(5)

        shop.trouble = hold
        thread = post.open()
        post.send(an_order())
        assert is_applied.wait(5)
        # The worst moment to die: applied, not committed. Its connection goes, as after kill -9.
        thread._connection.connection.transport.sock.shutdown(2)
        may_commit.set()

        eventually(lambda: len(shop.applied) == 2)
        assert shop.applied == [1, 1]
        assert post.is_done()

    def test_takes_events_from_the_exchange_by_routing_key(self, post, shop):
        post.open()
        post.send(an_order(7), exchange="order.exchange", key="order.created")
        post.send(an_order(8), exchange="order.exchange", key="order.cancelled")
        eventually(lambda: shop.applied == [7])

        assert post.is_done()

    def test_does_not_care_what_a_stranger_calls_the_content(self, post, shop):
        post.open()
        post.send(an_order(1), content_type="application/x-python-serialize")
        post.send(an_order(2), content_encoding="no-such-encoding")
        post.send(an_order(3), content_type="text/plain", content_encoding="utf-16")
        eventually(lambda: shop.applied == [1, 2, 3])

        assert post.is_done()

    def test_tells_the_events_of_one_queue_apart(self, open_post):
        shop = Shop()
        post = open_post(shop, StockDecided, StockReleased)
        facts = {"orderId": 1, "productId": PRODUCT_ID, "quantity": 1, "remaining": 1, "version": 1}
        decided = msgspec.json.encode({"decisions": [{**facts, "outcome": "REJECTED"}]})
        released = msgspec.json.encode(facts)
        post.open()
        post.send(decided, exchange="product.exchange", key="stock.decided")
        post.send(released, exchange="product.exchange", key="stock.released")
        # Put back by hand: only the type says what it is.
        post.send(decided, type="stock.decided")
        post.send(decided)
        eventually(lambda: len(shop.received) == 3)

        kinds = [type(each.event) for each in shop.received]
        assert kinds == [StockDecided, StockReleased, StockDecided]
        assert post.is_done()
        [letter] = post.dead_letters()
        assert "neither routing key" in letter.headers[REASON_HEADER]


POISON = {
    "empty": b"", "not JSON": b"hello", "bad UTF-8": b"\xff\xfe\x00", "a scalar": b"5",
    "null": b"null", "a list": b"[]", "without its fields": b"{}", "cut off": an_order()[:-3],
    "a pickle": b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00K\x01.",
    **{f"a quantity of {each!r}": an_order(quantity=each) for each in (0, -5, "5", True, 2**63)},
    "nested 100,000 deep": b'{"a":' * 100_000,
    "10 MB": b"x" * 10_000_000,
}  # fmt: skip


class TestHeaders:
    def test_are_known_to_what_applies_each_message(self, post, shop):
        post.open()
        post.send(an_order(1), application_headers={"request_id": "me", "traceparent": TRACEPARENT})
        post.send(an_order(2), application_headers={"traceparent": "00-nonsense"})
        post.send(an_order(3))
        eventually(lambda: len(shop.applied) == 3)

        seen = {each.event.order_id: each.correlation for each in shop.received}
        assert seen == {1: Correlation("me", TRACEPARENT), 2: None, 3: None}

    @pytest.mark.parametrize(
        "headers",
        [
            {"traceparent": 7, "request_id": 7, "timestamp_in_ms": "now"},
            {"traceparent": {"a": [1]}, "request_id": b"\xff", "timestamp_in_ms": -1},
            *(
                {"timestamp_in_ms": each}
                for each in (True, 2**62, 0, "9" * 15, "9" * 10_000, "\u0661\u0662", "")
            ),
        ],
    )
    def test_that_are_nonsense_change_nothing(self, post, shop, headers):
        post.open()
        post.send(an_order(), application_headers=headers)
        eventually(lambda: shop.applied == [1])

        [each] = shop.received
        assert (each.correlation, each.published_at_ms) == (None, None)
        assert post.is_done()
        assert post.dead_letters() == []

    @pytest.mark.parametrize("stamp", [1_700_000_000_123, "1700000000123"], ids=["number", "text"])
    def test_tell_when_a_message_was_handed_over(self, post, shop, stamp):
        post.open()
        post.send(an_order(1), application_headers={"timestamp_in_ms": stamp})
        post.send(an_order(2))
        eventually(lambda: len(shop.applied) == 2)

        assert [each.published_at_ms for each in shop.received] == [1_700_000_000_123, None]
        assert shop.received[0].published_at == "2023-11-14T22:13:20.123Z"
        assert shop.received[1].published_at is None


class TestLogLines:
    def test_about_one_message_say_which_request_and_which_order(self, post, shop, caplog):
        def choke(_batch: object) -> None:
            raise ZeroDivisionError

        shop.trouble = choke
        post.open()
        post.send(an_order(0), application_headers={"request_id": "me"})
        eventually(post.has_dead_letters)
        post.close()

        about = [record for record in caplog.records if "dead-letter" in record.getMessage()]
        assert len(about) == 2
        assert {(record.order_id, record.request_id) for record in about} == {("0", "me")}

    def test_are_at_debug_only_one_per_batch_and_one_per_message(self, post, shop, caplog, backlog):
        caplog.set_level(logging.INFO, "servicekit")
        backlog(an_order(1), an_order(2))
        post.open()
        eventually(lambda: len(shop.applied) == 2)
        post.close()
        assert not [r for r in caplog.records if hasattr(r, "messages") or hasattr(r, "order_id")]

        caplog.set_level(logging.DEBUG, "servicekit")
        backlog(an_order(3), an_order(4))
        post.open()
        eventually(lambda: len(shop.applied) == 4)
        post.close()
        [batch] = [record for record in caplog.records if hasattr(record, "messages")]
        assert (batch.queue, batch.messages) == (post.queue, 2)
        assert [r.order_id for r in caplog.records if hasattr(r, "order_id")] == ["3", "4"]


class TestMetrics:
    def test_tell_sizes_ages_and_dead_letters_by_queue(self, post, shop):
        post.open()
        post.send(an_order(1), application_headers={"timestamp_in_ms": int(time.time() * 1000)})
        post.send(an_order(2), b"{")
        eventually(lambda: len(shop.applied) == 2)
        eventually(post.has_dead_letters)
        post.close()

        def value(name: str) -> float | None:
            return REGISTRY.get_sample_value(name, {"queue": post.queue})

        assert value("consumer_batch_messages_sum") == 2
        assert value("consumer_message_age_seconds_count") == 1
        assert 0 <= value("consumer_message_age_seconds_sum") < 60
        assert value("consumer_dead_letters_total") == 1


class TestPoison:
    @pytest.mark.parametrize("body", POISON.values(), ids=POISON.keys())
    def test_is_dead_lettered_once_untouched_and_its_neighbours_are_applied(
        self, post, shop, backlog, body
    ):
        backlog(an_order(1), body, an_order(2))
        post.open()
        eventually(lambda: shop.applied == [1, 2])

        assert post.is_done()
        [letter] = post.dead_letters()
        assert bytes(letter.body or b"") == body
        assert letter.headers[REASON_HEADER].startswith(("order.created: ", "larger than "))
        assert letter.headers["x-dead-letter-from"] == post.queue

    def test_keeps_what_its_sender_said_of_it(self, post, shop):
        post.open()
        properties = {
            "message_id": "m-1", "correlation_id": "c-1", "type": "t", "content_type": "text/plain",
        }  # fmt: skip
        headers = {"request_id": "me", "traceparent": TRACEPARENT}
        post.send(b"hello", application_headers=headers, **properties)
        post.send(an_order())
        eventually(lambda: shop.applied == [1])

        assert post.is_done()
        [letter] = post.dead_letters()
        assert letter.headers.items() >= headers.items()
        assert letter.properties.items() >= properties.items()
        assert letter.properties["delivery_mode"] == 2

    @pytest.mark.parametrize("text", ["\ud800", b"\xff\xfe"], ids=["half a character", "no UTF-8"])
    def test_stops_nothing_whatever_its_properties_are(self, post, shop, text):
        post.open()
        post.send(b"hello", message_id=text, correlation_id=text, content_type=text, type=text)
        post.send(an_order(1), message_id=text)
        post.send(an_order(2))
        eventually(lambda: shop.applied == [1, 2])

        assert post.is_done()
        [letter] = post.dead_letters()
        assert bytes(letter.body) == b"hello"

    def test_a_thousand_in_a_row_stop_nothing(self, post, shop, backlog):
        backlog(*[b"hello"] * 1000, an_order())
        post.open()
        eventually(lambda: shop.applied == [1], within_seconds=30)

        assert post.is_done()
        assert len(post.dead_letters()) == 1000

    def test_that_the_handler_names_is_dead_lettered_with_its_reason(self, post, shop, backlog):
        shop.trouble = partial(refuse, 2)
        backlog(an_order(1), an_order(2), an_order(3))
        post.open()
        eventually(lambda: len(shop.applied) == 3)

        assert post.is_done()
        [letter] = post.dead_letters()
        assert bytes(letter.body) == an_order(2)
        assert letter.headers[REASON_HEADER] == "a contradiction"

    def test_that_breaks_the_handler_is_found_and_dead_lettered_alone(self, post, shop, backlog):
        def choke(batch: Sequence[Any]) -> None:
            if any(event.order_id == 13 for event in batch):
                raise ZeroDivisionError("a bug")

        shop.trouble = choke
        backlog(*(an_order(number) for number in range(20)))
        post.open()
        eventually(lambda: len(shop.applied) == 19)

        assert post.is_done()
        assert shop.applied == [number for number in range(20) if number != 13]
        [letter] = post.dead_letters()
        assert bytes(letter.body) == an_order(13)
        assert letter.headers[REASON_HEADER] == "ZeroDivisionError: a bug"

    def test_is_kept_when_there_is_nowhere_to_park_it(self, post, shop, backlog, broker):
        is_gone = threading.Event()
        shop.trouble = lambda _batch: is_gone.wait(5) and None
        backlog(b"hello", an_order())
        thread = post.open()
        broker.delete_queue(post.dead)
        is_gone.set()
        # The next connection declares it again.
        eventually(lambda: shop.applied == [1, 1])

        assert thread.is_alive()
        assert post.is_done()
        assert len(post.dead_letters()) == 1

    @pytest.mark.usefixtures("failing_publisher")
    def test_is_kept_until_it_can_be_dead_lettered(self, post, shop, backlog):
        backlog(an_order(1), b"hello", an_order(2))
        post.open()
        eventually(post.has_dead_letters)

        assert post.is_done()
        assert shop.applied == [1, 2]
        assert len(post.dead_letters()) == 1

    def test_that_breaks_the_reading_is_dead_lettered_alone(self, post, shop, backlog, monkeypatch):
        read = Subscription.read

        def choke(subscription: Subscription, delivery: Any) -> Received[Any]:
            if bytes(delivery.body) == an_order(13):
                raise ZeroDivisionError("a bug")
            return read(subscription, delivery)

        monkeypatch.setattr(Subscription, "read", choke)
        backlog(an_order(1), an_order(13), an_order(2))
        post.open()
        eventually(lambda: shop.applied == [1, 2])

        assert post.is_done()
        [letter] = post.dead_letters()
        assert bytes(letter.body) == an_order(13)
        assert letter.headers[REASON_HEADER] == "ZeroDivisionError: a bug"

    def test_is_dead_lettered_once_when_its_neighbours_have_to_wait(self, post, shop, backlog):
        shop.trouble = be_away
        backlog(b"hello", an_order())
        post.open()
        eventually(lambda: shop.attempts >= 3)
        post.close()
        shop.trouble = lambda _batch: None
        post.open()
        eventually(lambda: shop.applied == [1])

        assert post.is_done()
        assert len(post.dead_letters()) == 1


class TestTransientTrouble:
    def test_is_waited_out_with_the_batch_in_hand(self, post, shop, broker):
        def be_away_twice(_batch: object) -> None:
            if shop.attempts <= 2:
                raise DatabaseAway

        shop.trouble = be_away_twice
        post.open()
        post.send(an_order())
        eventually(lambda: shop.applied == [1])

        assert shop.attempts == 3
        assert post.is_done()
        assert broker.count(post.dead) == 0

    def test_does_not_turn_into_redeliveries(self, post, shop, backlog):
        shop.trouble = be_away
        backlog(an_order())
        post.open()
        eventually(lambda: shop.attempts >= 5)
        post.close()
        shop.trouble = lambda _batch: None

        # Delivered once and held all the time, so this is the second delivery, not the sixth.
        with post._broker.channel() as channel:
            message = channel.basic_get(post.queue)
            assert message.delivery_info["redelivered"]
            channel.basic_reject(message.delivery_tag, requeue=True)
        post.open()
        eventually(lambda: shop.applied == [1])

    def test_ends_with_the_batch_back_in_its_queue_when_the_worker_stops(self, post, shop, broker):
        shop.trouble = be_away
        post.open()
        post.send(an_order(1), an_order(2))
        eventually(lambda: shop.attempts >= 2)
        post.close()

        eventually(lambda: broker.count(post.queue) == 2)
        assert shop.applied == []

    def test_keeps_the_connection_when_no_more_can_arrive(self, post, shop, backlog, monkeypatch):
        # What is not read from the connection must not let the broker take us for dead.
        monkeypatch.setattr(Backoff, "next_seconds", lambda _backoff: 1.0)

        def be_away(_batch: object) -> None:
            if time.monotonic() < back_at:
                raise DatabaseAway

        shop.trouble = be_away
        backlog(*(an_order(number) for number in range(4)))
        back_at = time.monotonic() + 6
        post.open(heartbeat_seconds=1, batch_limit=2)
        eventually(lambda: len(shop.applied) >= 4, within_seconds=15)

        assert post.is_done()
        # Each delivered once: had the connection been lost, two of them would have come again.
        assert shop.applied == [0, 1, 2, 3]


class TestALostConnection:
    def test_brings_back_what_was_not_acknowledged(self, post, shop, line):
        def cut_the_first_time(_batch: object) -> None:
            if shop.attempts == 1:
                line.cut()

        shop.trouble = cut_the_first_time
        post.open(url=line.url)
        post.send(an_order())
        eventually(lambda: shop.applied == [1, 1])

        assert post.is_done()

    def test_is_replaced_by_another(self, post, shop, line):
        thread = post.open(url=line.url)
        for number in range(3):
            line.cut()
            post.send(an_order(number))
            eventually(lambda number=number: number in shop.applied)

        eventually(lambda: thread.is_consuming)
        # What was not acknowledged when the line was cut comes again, and may.
        assert set(shop.applied) == {0, 1, 2}

    def test_is_replaced_after_an_error_that_nobody_expects(self, post, shop, monkeypatch):
        step, bugs = ConsumerThread._step, iter([True])

        def choke_once(thread: ConsumerThread) -> bool:
            has_applied = step(thread)
            if has_applied and next(bugs, False):
                raise ZeroDivisionError("a bug")
            return has_applied

        monkeypatch.setattr(ConsumerThread, "_step", choke_once)
        post.open()
        for number in range(3):
            post.send(an_order(number))
            eventually(lambda number=number: shop.applied[-1:] == [number])

        assert next(bugs, None) is None
        assert post.is_done()
        # The acknowledgement of the first may have been lost with its connection.
        assert set(shop.applied) == {0, 1, 2}

    def test_is_noticed_when_the_queue_is_deleted(self, post, shop, broker):
        post.open()
        broker.delete_queue(post.queue)

        def is_declared_again() -> bool:
            with contextlib.suppress(amqp.NotFound):
                return broker.count(post.queue) == 0
            return False

        eventually(is_declared_again)
        post.send(an_order())
        eventually(lambda: shop.applied == [1])

    def test_brings_back_its_bindings_when_the_exchange_is_deleted(
        self, post, shop, broker, monkeypatch
    ):
        monkeypatch.setattr(consumer, "_DECLARE_EVERY_SECONDS", 0.05)
        post.open()
        with broker.channel() as channel:
            channel.exchange_delete("order.exchange")
            channel.exchange_declare("order.exchange", "topic", durable=True, auto_delete=False)

        def arrives() -> bool:
            post.send(an_order(), exchange="order.exchange", key="order.created")
            return bool(shop.applied)

        eventually(arrives)


def answer_to(queue: str) -> Callable[[Any], OutgoingMessage]:
    """Return what answers each order, in a queue."""
    to = partial(OutgoingMessage, exchange="", routing_key=queue)
    return lambda event: to(body=b"%d" % event.order_id, message_id=f"a-{event.order_id}")


CRASHING_CONSUMER = """
import sys

from servicekit.contracts.events import OrderCreated
from servicekit.messaging.consumer import ConsumerThread, Handled, Policy, Subscription
from servicekit.messaging.envelope import OutgoingMessage

url, queue, answers = sys.argv[1:]


def answer(batch):
    return Handled([OutgoingMessage(exchange="", routing_key=answers, body=b"1", message_id="a-1")])


subscription = Subscription(queue, (OrderCreated,), answer)
policy = Policy(is_held=lambda error: False)
ConsumerThread("it", [subscription], broker_url=url, policy=policy).run()
"""


class TestAnswers:
    @pytest.fixture
    def answers(self, broker, shop) -> Iterator[str]:
        """A queue that the shop's answers go to."""
        name = f"answers-{uuid4()}"
        broker.declare_queue(name)
        shop.answer = answer_to(name)
        yield name
        broker.delete_queue(name)

    def test_go_out_once_per_message(self, post, broker, answers):
        post.open()
        post.send(*(an_order(number) for number in range(10)))

        sent = broker.take(answers, count=10)
        assert [bytes(message.body) for message in sent] == [b"%d" % n for n in range(10)]
        assert post.is_done()
        assert broker.count(answers) == 0

    def test_are_confirmed_before_the_acknowledgement(
        self, post, shop, broker, answers, monkeypatch
    ):
        confirmed: list[int] = []

        def lose_the_connection_once(name: str) -> None:
            assert name == "consumer.after_answers"
            confirmed.append(broker.count(answers))
            if len(confirmed) == 1:
                thread._connection.connection.transport.sock.shutdown(2)

        monkeypatch.setattr(consumer, "failpoint", lose_the_connection_once)
        thread = post.open()
        post.send(an_order())
        eventually(lambda: len(confirmed) == 2)

        # The first answer was there when the message was not acknowledged yet.
        assert confirmed == [1, 2]
        first, second = broker.take(answers, count=2)
        assert first.properties["message_id"] == second.properties["message_id"]
        assert bytes(first.body) == bytes(second.body)
        eventually(lambda: shop.applied == [1, 1])
        assert post.is_done()
        assert post.dead_letters() == []

    def test_are_given_again_by_another_process_when_one_is_killed_after_them(
        self, post, shop, broker, answers, backlog
    ):
        backlog(an_order())
        died = subprocess.run(
            [sys.executable, "-c", CRASHING_CONSUMER, broker.url, post.queue, answers],
            env={**os.environ, "FAILPOINTS": "consumer.after_answers:kill"},
            check=False,
            timeout=60,
        )
        assert died.returncode == -signal.SIGKILL
        post.open()

        sent = broker.take(answers, count=2)
        assert [message.properties["message_id"] for message in sent] == ["a-1", "a-1"]
        eventually(lambda: shop.applied == [1])
        assert post.is_done()

    @pytest.mark.usefixtures("failing_publisher")
    def test_that_cannot_be_published_hold_their_batch(self, post, shop, broker, answers):
        post.open()
        post.send(an_order(1))
        [answer] = broker.take(answers, count=1)
        assert bytes(answer.body) == b"1"

        eventually(lambda: shop.attempts == 3)
        assert post.is_done()
        assert post.dead_letters() == []

    def test_that_no_queue_wants_hold_nothing_up(self, post, shop, caplog):
        shop.answer = answer_to(f"nobody-{uuid4()}")
        post.open()
        post.send(an_order(1), an_order(2))
        eventually(lambda: shop.applied == [1, 2])

        assert post.is_done()
        assert "returned" in caplog.text

    def test_of_what_is_refused_go_out_beside_those_of_the_others(
        self, post, shop, broker, answers, backlog
    ):
        shop.trouble = partial(refuse, 1)
        backlog(an_order(1), an_order(2))
        post.open()

        assert len(broker.take(answers, count=2)) == 2
        assert post.is_done()
        assert len(post.dead_letters()) == 1


class TestTheBoundInBytes:
    def test_ends_a_batch_whatever_the_number_of_its_messages(self, post, shop, backlog):
        size, limit = len(an_order(10)), 1000
        backlog(*(an_order(number) for number in range(10, 60)))
        post.open(batch_limit_bytes=limit)
        eventually(lambda: len(shop.applied) == 50)

        # The message that fills it is in it.
        assert max(len(batch) * size for batch in shop.batches) < limit + size
        assert shop.applied == list(range(10, 60))

    def test_is_kept_by_all_queues_of_a_connection_together(self, open_post, shop, monkeypatch):
        posts, size, limit = [open_post(shop, OrderCreated) for _ in range(2)], 300_000, 1_000_000
        large = an_order().ljust(size)
        posts[0].open(beside=posts[1])
        posts[0].close()
        for each in posts:
            each.send(*[large] * 20)
        held: list[int] = []
        put = Inbox.put

        def put_and_look(inbox: Inbox, delivery: Any) -> None:
            put(inbox, delivery)
            held.append(inbox._load.bytes)

        monkeypatch.setattr(Inbox, "put", put_and_look)
        shop.trouble = lambda _batch: time.sleep(0.05)
        thread = posts[0].open(beside=posts[1], batch_limit_bytes=limit)
        eventually(lambda: len(shop.applied) == 40)

        assert all(each.is_done() for each in posts)
        assert len(held) >= 40
        # The message that fills it is in it.
        assert max(held) < limit + size
        assert [inbox._load.bytes for _, inbox in thread._inboxes] == [0, 0]

    def test_parks_a_message_unread_that_is_larger_than_any_of_ours(self, post, shop):
        post.open(message_limit_bytes=len(an_order(1)))
        post.send(an_order(1), an_order(22), an_order(3))
        eventually(lambda: shop.applied == [1, 3])
        eventually(post.has_dead_letters)

        [letter] = post.dead_letters()
        assert letter.body == an_order(22)
        assert letter.headers[REASON_HEADER].startswith("larger than")

    def test_lets_a_message_through_that_is_larger(self, post, shop):
        post.open(batch_limit_bytes=10)
        post.send(an_order(1), an_order(2))
        eventually(lambda: shop.applied == [1, 2])

        assert max(map(len, shop.batches)) == 1
        assert post.is_done()


class TestThePace:
    def test_does_not_keep_a_lone_message_waiting(self, post, shop):
        post.open(pace_seconds=30)
        post.send(an_order())

        eventually(lambda: shop.applied == [1], within_seconds=5)

    def test_lets_batches_grow_with_the_load(self, post, shop):
        pace = 0.3
        post.open(pace_seconds=pace)
        ends_at, sent = time.monotonic() + 4 * pace, 0
        while time.monotonic() < ends_at:
            post.send(an_order(sent))
            sent += 1
        eventually(lambda: len(shop.applied) == sent)

        assert shop.applied == list(range(sent))
        elapsed = shop.started_at[-1] - shop.started_at[0]
        # Not each pause: on a busy machine a batch starts later than it was told to.
        assert 2 <= len(shop.batches) <= elapsed / pace + 2
        assert max(map(len, shop.batches)) > 1

    def test_does_not_wait_when_a_batch_is_full(self, post, shop, backlog):
        backlog(*(an_order(number) for number in range(40)))
        post.open(pace_seconds=30, batch_limit=10)

        eventually(lambda: len(shop.applied) == 40, within_seconds=5)
        assert [len(batch) for batch in shop.batches] == [10] * 4


class TestTwoQueuesOfOneThread:
    def test_are_acknowledged_each_by_itself(self, open_post, broker):
        good, bad = Shop(), Shop()

        bad.trouble = be_away
        healthy, sick = open_post(good, OrderCreated), open_post(bad, OrderCreated)
        healthy.open(beside=sick, pace_seconds=1.0)
        healthy.send(an_order(1))
        eventually(lambda: good.applied == [1])
        # All three arrive while a batch of the first queue is being collected: what is
        # acknowledged then came before and after what is not.
        healthy.send(an_order(2))
        sick.send(an_order(4))
        healthy.send(an_order(3))
        eventually(lambda: bad.attempts >= 3)
        assert good.batches[1:] == [[OrderCreated.from_json(an_order(n)) for n in (2, 3)]]
        # Arrives, and waits behind the one that is held.
        healthy.send(an_order(5))
        time.sleep(0.2)
        healthy.close()

        eventually(lambda: (broker.count(healthy.queue), broker.count(sick.queue)) == (1, 1))
        assert good.applied == [1, 2, 3]
        bad.trouble = lambda _batch: None
        healthy.open(beside=sick)
        eventually(lambda: (good.applied, bad.applied) == ([1, 2, 3, 5], [4]))
        assert healthy.is_done()
        assert sick.is_done()


def execute(*statements: str) -> None:
    """Run statements on a connection of this thread's own, and let go of it."""
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
    finally:
        connection.close()


READ_ONLY = ("SET default_transaction_read_only = on", "CREATE TABLE of_no_use (id int)")
OF_OURS = {
    "read-only after a failover": (InternalError, READ_ONLY),
    "without a table": (ProgrammingError, ["SELECT * FROM that_is_not_there"]),
    "without a privilege": (ProgrammingError, ["SELECT * FROM pg_authid"]),
    "too slow": (OperationalError, ["SET statement_timeout = 5", "SELECT pg_sleep(5)"]),
}
OF_THE_MESSAGE = {
    "out of range": (DataError, ["SELECT 1 / 0"]),
    "a NUL": (DataError, [r"SELECT E'\\x00'::bytea::text::int"]),
    "a violated constraint": (
        IntegrityError,
        ["CREATE TEMPORARY TABLE scarce (id int UNIQUE)", *["INSERT INTO scarce VALUES (1)"] * 2],
    ),
}


@pytest.mark.django_db(transaction=True)
class TestAnErrorOfTheDatabase:
    @pytest.mark.parametrize(("kind", "statements"), OF_OURS.values(), ids=OF_OURS.keys())
    def test_that_is_not_the_messages_fault_holds_it(self, post, shop, broker, kind, statements):
        raised: list[Exception] = []

        def fail_three_times(_batch: object) -> None:
            if shop.attempts <= 3:
                try:
                    execute(*statements)
                except Exception as error:
                    raised.append(error)
                    raise

        shop.trouble = fail_three_times
        post.open(is_held=is_trouble_of_ours)
        post.send(an_order())
        eventually(lambda: shop.applied == [1])

        assert [type(error) for error in raised] == [kind] * 3
        assert post.is_done()
        assert broker.count(post.dead) == 0

    @pytest.mark.parametrize(
        ("kind", "statements"), OF_THE_MESSAGE.values(), ids=OF_THE_MESSAGE.keys()
    )
    def test_that_its_data_causes_parks_it_alone(self, post, shop, backlog, kind, statements):
        def choke(batch: Sequence[Any]) -> None:
            if any(event.order_id == 2 for event in batch):
                execute(*statements)

        shop.trouble = choke
        backlog(an_order(1), an_order(2), an_order(3))
        post.open(is_held=is_trouble_of_ours)
        eventually(lambda: shop.applied == [1, 3])

        assert post.is_done()
        [letter] = post.dead_letters()
        assert bytes(letter.body) == an_order(2)
        assert letter.headers[REASON_HEADER].startswith(f"{kind.__name__}: ")


class TestADeadLetter:
    @pytest.mark.parametrize(
        ("headers", "kept"),
        [
            (
                {"task": "persist", "id": "1", "n": 5, "long": "x" * 300, "x" * 300: "y"},
                {"task": "persist", "id": "1"},
            ),
            ([1], {}),
        ],
    )
    def test_keeps_the_headers_that_say_what_it_is(self, headers, kept):
        delivery = SimpleNamespace(properties={"application_headers": headers})

        assert consumer._kept_headers(delivery) == kept
