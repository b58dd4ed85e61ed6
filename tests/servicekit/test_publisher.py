"""Publishing that knows what became of every message, on a real broker."""

import time
from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import pytest

from servicekit.messaging.publisher import (
    ConfirmingPublisher,
    Outcome,
    OutgoingMessage,
    PublishingFailed,
)
from servicekit.messaging.topology import CONSUMED_FROM
from tests.servicekit.private_broker import eventually, unused_port


def to(queue: str, body: bytes = b"{}", **facts: object) -> OutgoingMessage:
    return OutgoingMessage(
        exchange="", routing_key=queue, body=body, message_id=str(uuid4()), **facts
    )


@pytest.fixture
def queue(broker) -> Iterator[str]:
    name = f"publisher-{uuid4()}"
    broker.declare_queue(name)
    yield name
    broker.delete_queue(name)


@pytest.fixture
def full_queue(broker) -> Iterator[str]:
    """A queue that takes one message and refuses the next."""
    name = f"full-{uuid4()}"
    broker.declare_queue(name, **{"x-max-length": 1, "x-overflow": "reject-publish"})
    yield name
    broker.delete_queue(name)


@pytest.fixture
def publisher_on_the_line(line) -> Iterator[ConfirmingPublisher]:
    made = ConfirmingPublisher(line.url, connect_timeout=0.5, confirm_timeout=0.3)
    yield made
    made.close()


def is_maybe_published(publisher: ConfirmingPublisher, queue: str) -> bool:
    """Fail to publish, and return what is said of it."""
    with pytest.raises(PublishingFailed) as failure:
        publisher.publish([to(queue)])
    return failure.value.maybe_published


class TestPublish:
    def test_confirms_what_is_in_a_queue(self, broker, publisher, queue):
        assert publisher.publish([to(queue, b'{"n": 1}')]) == [Outcome.CONFIRMED]

        [message] = broker.take(queue, count=1)
        assert bytes(message.body) == b'{"n": 1}'

    def test_says_what_a_message_is_in_its_properties(self, broker, publisher, queue):
        message = to(queue, type="order.created", correlation_id="4711", headers={"x": "y"})
        publisher.publish([message])

        [arrived] = broker.take(queue, count=1)
        assert arrived.properties["message_id"] == message.message_id
        assert arrived.properties["type"] == "order.created"
        assert arrived.properties["correlation_id"] == "4711"
        assert arrived.properties["content_type"] == "application/json"
        assert arrived.properties["delivery_mode"] == 2
        assert arrived.headers == {"x": "y"}
        assert abs(arrived.properties["timestamp"] - time.time()) < 60

    def test_keeps_the_order_of_a_batch(self, broker, publisher, queue):
        batch = [to(queue, str(number).encode()) for number in range(200)]

        assert publisher.publish(batch) == [Outcome.CONFIRMED] * 200
        arrived = [int(bytes(message.body)) for message in broker.take(queue, count=200)]
        assert arrived == list(range(200))

    def test_is_not_content_with_the_queue_of_a_stranger(self, broker, publisher, queue):
        broker.bind(queue, "order.exchange", "order.*")
        own = {key: CONSUMED_FROM[key] for key in ("order.created", "order.cancelled")}
        created, cancelled = batch = [
            replace(to(key), exchange="order.exchange", message_id=key) for key in own
        ]
        broker.delete_queue(own["order.created"])
        try:
            assert publisher.publish(batch) == [Outcome.RETURNED, Outcome.CONFIRMED]
            assert publisher.publish([created]) == [Outcome.RETURNED]
        finally:
            broker.declare_queue(own["order.created"])

        assert publisher.publish([created]) == [Outcome.CONFIRMED]
        taken = [each.properties["message_id"] for each in broker.take(queue, count=2)]
        assert taken == [cancelled.message_id, created.message_id]

    def test_tells_what_a_queue_refused(self, broker, publisher, full_queue):
        outcomes = publisher.publish([to(full_queue, b"1"), to(full_queue, b"2")])

        assert outcomes == [Outcome.CONFIRMED, Outcome.REFUSED]
        assert broker.count(full_queue) == 1

    def test_tells_each_of_a_mixed_batch_its_own_outcome(self, publisher, queue, full_queue):
        publisher.publish([to(full_queue)])
        nobody = f"nobody-{uuid4()}"
        batch = [to(queue), to(nobody), to(full_queue), to(queue), to(nobody)]

        good, nowhere, full = Outcome.CONFIRMED, Outcome.RETURNED, Outcome.REFUSED
        assert publisher.publish(batch) == [good, nowhere, full, good, nowhere]
        assert publisher.publish([]) == []

    def test_does_not_take_the_answer_to_one_batch_for_another(self, publisher, queue):
        nobody = f"nobody-{uuid4()}"

        for _ in range(20):
            assert publisher.publish([to(nobody)]) == [Outcome.RETURNED]
            assert publisher.publish([to(queue)]) == [Outcome.CONFIRMED]

    @pytest.mark.parametrize("body", [b"", b"x" * 1_000_000], ids=["empty", "1 MB"])
    def test_takes_any_body(self, broker, publisher, queue, body):
        assert publisher.publish([to(queue, body)]) == [Outcome.CONFIRMED]
        [message] = broker.take(queue, count=1)
        assert len(message.body) == len(body)

    def test_declares_the_exchanges_of_the_system(self, broker, publisher, queue):
        publisher.publish([to(queue)])

        with broker.channel() as channel:
            for exchange in ("order.exchange", "product.exchange"):
                channel.exchange_declare(exchange, "topic", passive=True)

    def test_fails_for_certain_when_nobody_listens_and_soon(self):
        publisher = ConfirmingPublisher(f"amqp://a:b@127.0.0.1:{unused_port()}//")
        started = time.monotonic()

        assert not is_maybe_published(publisher, "queue")
        assert time.monotonic() - started < 1

    def test_fails_for_certain_when_the_credentials_are_wrong(self, broker):
        publisher = ConfirmingPublisher(broker.url.replace("amqp://", "amqp://no", 1))

        assert not is_maybe_published(publisher, "queue")


class TestPublishOnABadLine:
    def test_leaves_the_outcome_open_when_it_is_cut_and_connects_again_for_the_next_batch(
        self, broker, line, publisher_on_the_line, queue
    ):
        publisher_on_the_line.publish([to(queue)])
        line.cut()

        assert is_maybe_published(publisher_on_the_line, queue)
        assert publisher_on_the_line.publish([to(queue)]) == [Outcome.CONFIRMED]
        eventually(lambda: broker.count(queue) >= 2)

    def test_leaves_the_outcome_open_when_it_falls_silent_and_waits_no_longer_than_told(
        self, line, publisher_on_the_line, queue
    ):
        publisher_on_the_line.publish([to(queue)])
        line.blackhole()
        started = time.monotonic()

        assert is_maybe_published(publisher_on_the_line, queue)
        assert time.monotonic() - started < 1

    def test_is_bounded_in_time_when_it_is_silent_from_the_start(self, line, publisher_on_the_line):
        line.blackhole()
        started = time.monotonic()

        with pytest.raises(PublishingFailed):
            publisher_on_the_line.publish([to("queue")])
        assert time.monotonic() - started < 3

    def test_is_told_when_an_exchange_does_not_exist_and_goes_on(self, publisher, queue):
        lost = OutgoingMessage(
            exchange=f"no-{uuid4()}", routing_key="x", body=b"", message_id=str(uuid4())
        )

        with pytest.raises(PublishingFailed):
            publisher.publish([lost])
        assert publisher.publish([to(queue)]) == [Outcome.CONFIRMED]
