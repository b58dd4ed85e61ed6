"""Consuming in batches, on a real broker: applied, parked or held, and nothing in between."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import amqp
import msgspec
import pytest
from prometheus_client import REGISTRY

from servicekit import correlation
from servicekit.contracts.events import OrderCreated, StockRejected, StockReserved
from servicekit.correlation import Correlation
from servicekit.messaging.backoff import Backoff
from servicekit.messaging.consumer import (
    REASON_HEADER,
    BatchConsumer,
    Subscription,
    Unprocessable,
)
from servicekit.messaging.topology import Topology, dead_letter_queue_name
from tests.servicekit.private_broker import VirtualHost, eventually

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PRODUCT_ID = UUID("0198c0de-0000-7000-8000-00000000000a")


class DatabaseAway(Exception):
    """What is waited out."""


class Shop:
    """Applies batches, and does with each what the test wants."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.attempts = 0
        self.trouble: Callable[[Sequence[Any]], object] = lambda _batch: None

    @property
    def applied(self) -> list[object]:
        """The order ids whose effect is committed."""
        return [event.order_id for batch in self.batches for event in batch]

    def handle(self, batch: Sequence[Any]) -> list[Unprocessable]:
        self.attempts += 1
        refused = self.trouble(batch)
        self.batches.append(list(batch))
        return refused if isinstance(refused, list) else []


class Post:
    """A queue bound to an exchange, and the consumers on it."""

    def __init__(self, broker: VirtualHost, events: tuple[Any, ...], shop: Shop) -> None:
        self.queue = f"consumer-{uuid4()}"
        self.dead = dead_letter_queue_name(self.queue)
        self._broker = broker
        self._subscription = Subscription(self.queue, events, shop.handle)
        self._consumers: list[BatchConsumer] = []

    def open(self, *, url: str = "", batch_limit: int = 500) -> BatchConsumer:
        consumer = BatchConsumer(
            self._subscription,
            broker_url=url or self._broker.url,
            topology=Topology(queue_type="classic"),
            transient_errors=(DatabaseAway,),
            before_batch=lambda: None,
            batch_limit=batch_limit,
        )
        self._consumers.append(consumer)
        consumer.start()
        eventually(lambda: consumer.is_consuming)
        return consumer

    def close(self) -> None:
        """End the consumers. What they have in hand goes back."""
        for consumer in self._consumers:
            consumer.stop()
        for consumer in self._consumers:
            consumer.join(10)
            assert not consumer.is_alive()
        self._consumers.clear()

    def send(self, *bodies: bytes, exchange: str = "", key: str = "", **properties: Any) -> None:
        with self._broker.channel() as channel:
            for body in bodies:
                channel.basic_publish(
                    amqp.Message(body, **properties),
                    exchange=exchange,
                    routing_key=key or self.queue,
                )

    def is_done(self) -> bool:
        """Whether nothing waits, neither in the queue nor in a consumer's hands."""
        self.close()
        with self._broker.channel() as channel:

            def look() -> Any:
                return channel.queue_declare(self.queue, passive=True)

            # Only then it has taken back what they had in hand.
            eventually(lambda: look().consumer_count == 0)
            return look().message_count == 0

    def has_parked(self) -> bool:
        return self._broker.count(self.dead) > 0

    def parked(self) -> list[Any]:
        return self._broker.take_all(self.dead)


def an_order(order_id: int = 1, quantity: Any = 1) -> bytes:
    return msgspec.json.encode({"orderId": order_id, "productId": PRODUCT_ID, "quantity": quantity})


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture(autouse=True)
def impatient(monkeypatch) -> None:
    """Growing pauses and long looks would only make the tests slow."""
    drain = BatchConsumer._drain
    monkeypatch.setattr(Backoff, "next_seconds", lambda _backoff: 0.02)
    monkeypatch.setattr(
        BatchConsumer, "_drain", lambda consumer, seconds: drain(consumer, min(seconds, 0.05))
    )


@pytest.fixture
def post(broker, shop) -> Iterator[Post]:
    opened = Post(broker, (OrderCreated,), shop)
    yield opened
    opened.close()
    broker.delete_queue(opened.queue)
    broker.delete_queue(opened.dead)


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

    def test_takes_together_what_waits(self, post, shop, backlog):
        backlog(*(an_order(number) for number in range(100)))
        post.open()
        eventually(lambda: len(shop.applied) == 100)

        assert shop.applied == list(range(100))
        assert len(shop.batches) < 20

    def test_takes_no_more_than_the_limit(self, post, shop, backlog):
        backlog(*(an_order(number) for number in range(25)))
        post.open(batch_limit=10)
        eventually(lambda: len(shop.applied) == 25)

        assert max(len(batch) for batch in shop.batches) <= 10

    def test_comes_before_the_acknowledgement(self, post, shop):
        is_applied, may_commit = threading.Event(), threading.Event()

        def hold(_batch: object) -> None:
            is_applied.set()
            may_commit.wait(5)

        shop.trouble = hold
        consumer = post.open()
        post.send(an_order())
        assert is_applied.wait(5)
        # The worst moment to die: applied, not committed. Its connection goes, as after kill -9.
        consumer._connection.connection.transport.sock.shutdown(2)
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

    def test_tells_the_events_of_one_queue_apart(self, broker, shop):
        post = Post(broker, (StockReserved, StockRejected), shop)
        body = {"orderId": 1, "productId": PRODUCT_ID, "quantity": 1, "remaining": 1, "version": 1}
        reserved = msgspec.json.encode(body)
        rejected = msgspec.json.encode({**body, "reason": "x"})
        post.open()
        try:
            post.send(reserved, exchange="product.exchange", key="stock.reserved")
            post.send(rejected, exchange="product.exchange", key="stock.rejected")
            # Put back by hand: only the type says what it is.
            post.send(rejected, type="stock.rejected")
            post.send(rejected)
            eventually(lambda: len(shop.applied) == 3)

            kinds = [type(event) for batch in shop.batches for event in batch]
            assert kinds == [StockReserved, StockRejected, StockRejected]
            assert post.is_done()
            [parked] = post.parked()
            assert "neither routing key" in parked.headers[REASON_HEADER]
        finally:
            post.close()
            broker.delete_queue(post.queue)
            broker.delete_queue(post.dead)


POISON = {
    "empty": b"",
    "not JSON": b"hello",
    "bad UTF-8": b"\xff\xfe\x00",
    "a pickle": b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00K\x01.",
    "cut off": an_order()[:-3],
    "a scalar": b"5",
    "null": b"null",
    "a list": b"[]",
    "without its fields": b"{}",
    "a quantity of zero": an_order(quantity=0),
    "a quantity below zero": an_order(quantity=-5),
    "a quantity in quotes": an_order(quantity="5"),
    "a quantity of true": an_order(quantity=True),
    "a quantity of 2 to the 63rd": an_order(quantity=2**63),
    "nested 100,000 deep": b'{"orderId":' * 100_000,
    "10 MB": b"x" * 10_000_000,
}


class PublishedOrder(OrderCreated, frozen=True, kw_only=True):
    """An event that wants to know when the broker was given it."""

    def published(self, at_ms: int) -> "PublishedOrder":
        return msgspec.structs.replace(self, total_price=at_ms)


class TestHeaders:
    def test_are_known_to_what_is_recorded_about_each_order(self, post, shop):
        seen = {}

        def look(batch: Sequence[Any]) -> None:
            seen.update({event.order_id: correlation.of(event.correlation_id) for event in batch})

        shop.trouble = look
        post.open()
        post.send(an_order(1), application_headers={"request_id": "me", "traceparent": TRACEPARENT})
        post.send(an_order(2), application_headers={"traceparent": "00-nonsense"})
        post.send(an_order(3))
        eventually(lambda: len(shop.applied) == 3)

        assert seen == {1: Correlation("me", TRACEPARENT), 2: None, 3: None}
        assert correlation.of("1") is None

    @pytest.mark.parametrize(
        "headers",
        [
            {"traceparent": 7, "request_id": 7, "timestamp_in_ms": "now"},
            {"traceparent": {"a": [1]}, "request_id": b"\xff", "timestamp_in_ms": -1},
            {"timestamp_in_ms": True},
            {"timestamp_in_ms": 2**62},
        ],
    )
    def test_that_are_nonsense_change_nothing(self, post, shop, headers):
        post.open()
        post.send(an_order(), application_headers=headers)
        eventually(lambda: shop.applied == [1])

        assert post.is_done()
        assert post.parked() == []

    def test_tell_an_event_when_it_was_handed_over(self, broker, shop):
        post = Post(broker, (PublishedOrder,), shop)
        post.open()
        post.send(an_order(1), application_headers={"timestamp_in_ms": 1_700_000_000_123})
        post.send(an_order(2))
        eventually(lambda: len(shop.applied) == 2)
        post.close()
        broker.delete_queue(post.queue)
        broker.delete_queue(post.dead)

        prices = [event.total_price for batch in shop.batches for event in batch]
        assert prices == [1_700_000_000_123, None]

    def test_stay_with_a_message_that_is_parked(self, post):
        post.open()
        post.send(b"{", application_headers={"request_id": "me", "traceparent": TRACEPARENT})
        eventually(post.has_parked)

        [parked] = post.parked()
        assert (parked.headers["request_id"], parked.headers["traceparent"]) == ("me", TRACEPARENT)


class TestLogLines:
    def test_about_one_message_say_which_request_and_which_order(self, post, shop, caplog):
        def choke(_batch: object) -> None:
            raise ZeroDivisionError

        shop.trouble = choke
        post.open()
        post.send(an_order(7), application_headers={"request_id": "me"})
        eventually(post.has_parked)
        post.close()

        about = [record for record in caplog.records if "park" in record.getMessage()]
        assert len(about) == 2
        assert {(record.order_id, record.request_id) for record in about} == {("7", "me")}

    def test_are_one_per_batch_and_at_debug_one_more_per_message(self, post, shop, caplog, backlog):
        caplog.set_level(logging.INFO, "servicekit")
        backlog(an_order(1), an_order(2))
        post.open()
        eventually(lambda: len(shop.applied) == 2)
        post.close()
        [batch] = [record for record in caplog.records if hasattr(record, "messages")]
        assert (batch.queue, batch.messages) == (post.queue, 2)

        caplog.set_level(logging.DEBUG, "servicekit")
        backlog(an_order(3), an_order(4))
        post.open()
        eventually(lambda: len(shop.applied) == 4)
        post.close()
        assert [r.order_id for r in caplog.records if hasattr(r, "order_id")] == ["3", "4"]


class TestMetrics:
    def test_tell_sizes_ages_and_parked_messages_by_queue(self, post, shop):
        post.open()
        post.send(an_order(1), application_headers={"timestamp_in_ms": int(time.time() * 1000)})
        post.send(an_order(2), b"{")
        eventually(lambda: len(shop.applied) == 2)
        eventually(post.has_parked)
        post.close()

        def value(name: str) -> float | None:
            return REGISTRY.get_sample_value(name, {"queue": post.queue})

        assert value("consumer_batch_messages_sum") == 2
        assert value("consumer_message_age_seconds_count") == 1
        assert 0 <= value("consumer_message_age_seconds_sum") < 60
        assert value("consumer_parked_messages_total") == 1


class TestPoison:
    @pytest.mark.parametrize("body", POISON.values(), ids=POISON.keys())
    def test_is_parked_once_untouched_and_its_neighbours_are_applied(
        self, post, shop, backlog, body
    ):
        backlog(an_order(1), body, an_order(2))
        post.open()
        eventually(lambda: shop.applied == [1, 2])

        assert post.is_done()
        [parked] = post.parked()
        assert bytes(parked.body or b"") == body
        assert parked.headers[REASON_HEADER].startswith("order.created: ")
        assert parked.headers["x-parked-from"] == post.queue

    def test_keeps_what_its_sender_said_of_it(self, post, shop):
        post.open()
        properties = {
            "message_id": "m-1", "correlation_id": "c-1", "type": "t", "content_type": "text/plain",
        }  # fmt: skip
        post.send(b"hello", **properties)
        post.send(an_order())
        eventually(lambda: shop.applied == [1])

        assert post.is_done()
        [parked] = post.parked()
        assert parked.properties.items() >= properties.items()
        assert parked.properties["delivery_mode"] == 2

    @pytest.mark.parametrize("text", ["\ud800", b"\xff\xfe"], ids=["half a character", "no UTF-8"])
    def test_stops_nothing_whatever_its_properties_are(self, post, shop, text):
        post.open()
        post.send(b"hello", message_id=text, correlation_id=text, content_type=text, type=text)
        post.send(an_order(1), message_id=text)
        post.send(an_order(2))
        eventually(lambda: shop.applied == [1, 2])

        assert post.is_done()
        [parked] = post.parked()
        assert bytes(parked.body) == b"hello"

    def test_a_thousand_in_a_row_stop_nothing(self, post, shop, backlog):
        backlog(*[b"hello"] * 1000, an_order())
        post.open()
        eventually(lambda: shop.applied == [1], within_seconds=30)

        assert post.is_done()
        assert len(post.parked()) == 1000

    def test_that_the_handler_names_is_parked_with_its_reason(self, post, shop, backlog):
        shop.trouble = lambda batch: [
            Unprocessable(event, "a contradiction") for event in batch if event.order_id == 2
        ]
        backlog(an_order(1), an_order(2), an_order(3))
        post.open()
        eventually(lambda: len(shop.applied) == 3)

        assert post.is_done()
        [parked] = post.parked()
        assert bytes(parked.body) == an_order(2)
        assert parked.headers[REASON_HEADER] == "a contradiction"

    def test_that_breaks_the_handler_is_found_and_parked_alone(self, post, shop, backlog):
        def choke(batch: Sequence[Any]) -> None:
            if any(event.order_id == 13 for event in batch):
                raise ZeroDivisionError("a bug")

        shop.trouble = choke
        backlog(*(an_order(number) for number in range(20)))
        post.open()
        eventually(lambda: len(shop.applied) == 19)

        assert post.is_done()
        assert shop.applied == [number for number in range(20) if number != 13]
        [parked] = post.parked()
        assert bytes(parked.body) == an_order(13)
        assert parked.headers[REASON_HEADER] == "ZeroDivisionError: a bug"

    def test_is_kept_when_there_is_nowhere_to_park_it(self, post, shop, backlog, broker):
        backlog(b"hello", an_order())
        consumer = post.open()
        broker.delete_queue(post.dead)
        # The next connection declares it again.
        eventually(lambda: shop.applied[-1:] == [1])

        assert consumer.is_alive()
        assert post.is_done()

    def test_is_parked_once_when_its_neighbours_have_to_wait(self, post, shop, backlog):
        shop.trouble = self._be_away
        backlog(b"hello", an_order())
        post.open()
        eventually(lambda: shop.attempts >= 3)
        post.close()
        shop.trouble = lambda _batch: None
        post.open()
        eventually(lambda: shop.applied == [1])

        assert post.is_done()
        assert len(post.parked()) == 1

    @staticmethod
    def _be_away(_batch: object) -> None:
        raise DatabaseAway


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
        def be_away(_batch: object) -> None:
            raise DatabaseAway

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
        def be_away(_batch: object) -> None:
            raise DatabaseAway

        shop.trouble = be_away
        post.open()
        post.send(an_order(1), an_order(2))
        eventually(lambda: shop.attempts >= 2)
        post.close()

        eventually(lambda: broker.count(post.queue) == 2)
        assert shop.applied == []


class TestALostConnection:
    def test_brings_back_what_was_not_acknowledged(self, post, shop, line):
        cable, url = line

        def cut_the_first_time(_batch: object) -> None:
            if shop.attempts == 1:
                cable.cut()

        shop.trouble = cut_the_first_time
        post.open(url=url)
        post.send(an_order())
        eventually(lambda: shop.applied == [1, 1])

        assert post.is_done()

    def test_is_replaced_by_another(self, post, shop, line):
        cable, url = line
        consumer = post.open(url=url)
        for number in range(3):
            cable.cut()
            post.send(an_order(number))
            eventually(lambda number=number: number in shop.applied)

        eventually(lambda: consumer.is_consuming)
        assert shop.applied == [0, 1, 2]

    def test_is_noticed_when_the_queue_is_deleted(self, post, shop, broker):
        post.open()
        broker.delete_queue(post.queue)

        def is_declared_again() -> bool:
            with broker.channel() as channel:
                try:
                    channel.queue_declare(post.queue, passive=True)
                except amqp.NotFound:
                    return False
            return True

        eventually(is_declared_again)
        post.send(an_order())
        eventually(lambda: shop.applied == [1])
