"""Messages as they go onto the wire, byte by byte."""

import struct
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import amqp
import msgspec
import pytest
from amqp import spec
from amqp.method_framing import frame_writer
from amqp.serialization import dumps
from hypothesis import given
from hypothesis import strategies as st

from servicekit.contracts.events import OrderCreated, StockDecided
from servicekit.correlation import Correlation
from servicekit.messaging.celery_protocol import task_message
from servicekit.messaging.consumer import ConsumerThread, Policy, Subscription
from servicekit.messaging.envelope import OutgoingMessage, event_message, headers
from servicekit.messaging.topology import dead_letter_queue_name
from tests.servicekit.private_broker import eventually

FRAME_MAX = 4096
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ORDER = {"order_id": 7, "product_id": uuid4(), "quantity": 1}


def as_py_amqp_writes(message: OutgoingMessage, channel: int) -> bytes:
    """The frames that py-amqp's own `basic_publish` would write."""
    properties = {
        "content_type": message.content_type,
        "content_encoding": message.content_encoding,
        "delivery_mode": 2,
        "correlation_id": message.correlation_id,
        "message_id": message.message_id,
        "timestamp": message.timestamp,
        "type": message.type,
    }
    given_ones = {name: value for name, value in properties.items() if value is not None}
    content = amqp.Message(message.body, application_headers=message.headers, **given_ones)
    written: list[bytes] = []
    write = frame_writer(
        SimpleNamespace(frame_max=FRAME_MAX, bytes_sent=0),
        SimpleNamespace(write=lambda frame: written.append(bytes(frame))),
    )
    arguments = dumps("Bssbb", (0, message.exchange, message.routing_key, True, False))
    write(1, channel, spec.Basic.Publish, arguments, content)
    return b"".join(written)


def frames_in(octets: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and payload of each frame (AMQP 0-9-1, section 4.2.3)."""
    at = 0
    while at < len(octets):
        kind, _, size = struct.unpack_from(">BHI", octets, at)
        assert octets[at + 7 + size] == 0xCE
        yield kind, octets[at + 7 : at + 7 + size]
        at += size + 8


def field_types(octets: bytes) -> dict[str, str]:
    """The type of each header in the frames of a message (AMQP 0-9-1, sections 2.3.5 and 4.2.5)."""
    header = next(payload for kind, payload in frames_in(octets) if kind == 2)
    (flags,) = struct.unpack_from(">H", header, 12)
    at = 14
    for flag in (1 << 15, 1 << 14):  # content type and encoding come before the table
        if flags & flag:
            at += 1 + header[at]
    assert flags & 1 << 13
    (size,) = struct.unpack_from(">I", header, at)
    at += 4
    end = at + size
    types = {}
    while at < end:
        name = header[at + 1 : at + 1 + header[at]].decode()
        at += 1 + header[at]
        types[name] = kind = chr(header[at])
        at += 1
        if kind == "S":
            at += 4 + struct.unpack_from(">I", header, at)[0]
        else:
            at += {"t": 1, "V": 0}[kind]  # nothing else is expected
    assert at == end
    return types


texts = st.text(max_size=40)
messages = st.builds(
    OutgoingMessage,
    exchange=texts,
    routing_key=texts,
    body=st.binary(max_size=50) | st.integers(0, 3 * FRAME_MAX).map(bytes),
    message_id=texts,
    type=st.none() | texts,
    correlation_id=st.none() | texts,
    timestamp=st.integers(0, 2**40),
    content_type=texts,
    content_encoding=st.none() | texts,
    headers=st.dictionaries(
        texts, texts | st.none() | st.booleans() | st.lists(texts, max_size=2), max_size=4
    ),
)


class TestFrames:
    @given(message=messages, channel=st.integers(1, 65_535))
    def test_are_those_of_py_amqp(self, message, channel):
        assert message.frames(channel, FRAME_MAX) == as_py_amqp_writes(message, channel)

    @pytest.mark.parametrize("size", [0, 1, FRAME_MAX - 9, FRAME_MAX - 8, FRAME_MAX - 7, 100_000])
    def test_are_no_longer_than_the_broker_takes(self, size):
        message = event_message(OrderCreated(**ORDER))
        message = OutgoingMessage(
            exchange="", routing_key="q", body=b"x" * size, message_id=message.message_id
        )
        frames = list(frames_in(message.frames(1, FRAME_MAX)))

        assert max(len(payload) + 8 for _, payload in frames) <= FRAME_MAX
        assert sum(len(payload) for kind, payload in frames if kind == 3) == size


class TestTheHeadersOfOurs:
    """Other languages' clients cannot read what py-amqp makes of a number."""

    @pytest.mark.parametrize("source", [None, Correlation("me", TRACEPARENT), Correlation("me")])
    @pytest.mark.parametrize("event", [OrderCreated(**ORDER), StockDecided(decisions=[])])
    def test_of_an_event_are_text(self, event, source):
        types = field_types(event_message(event, source).frames(1, FRAME_MAX))

        assert set(types.values()) == {"S"}
        assert types.keys() == {"timestamp_in_ms", *(source.headers if source else {})}

    def test_of_a_task_are_nothing_that_others_cannot_read(self):
        # Celery's protocol has a boolean and nulls; numbers are what others stumble over.
        message = task_message(task="a", queue="q", task_id=uuid4(), kwargs={})

        assert set(field_types(message.frames(1, FRAME_MAX)).values()) <= {"S", "V", "t"}

    def test_of_a_message_that_is_dead_lettered_are_text(self, broker, monkeypatch):
        written: list[bytes] = []
        frames = OutgoingMessage.frames

        def tap(message: OutgoingMessage, channel: int, frame_max: int) -> bytes:
            written.append(frames(message, channel, frame_max))
            return written[-1]

        monkeypatch.setattr(OutgoingMessage, "frames", tap)
        queue = f"envelope-{uuid4()}"
        subscription = Subscription(queue, (OrderCreated,), lambda _batch: None)
        thread = ConsumerThread(
            "it", [subscription], broker_url=broker.url, policy=Policy(is_held=lambda _: False)
        )
        thread.start()
        eventually(lambda: thread.is_consuming)
        with broker.channel() as channel:
            theirs = {"timestamp_in_ms": 5, "request_id": "me", "traceparent": TRACEPARENT, "n": 1}
            channel.basic_publish(
                amqp.Message(b"poison", application_headers=theirs), routing_key=queue
            )
        eventually(lambda: len(written) == 1)
        thread.stop()
        thread.join(10)
        broker.delete_queue(queue)
        broker.delete_queue(dead_letter_queue_name(queue))

        types = field_types(written[0])
        assert set(types.values()) == {"S"}
        assert types.keys() >= {
            "x-dead-letter-reason",
            "x-dead-letter-from",
            "request_id",
            "traceparent",
        }

    def test_can_fail(self):
        # The negative control of the three above.
        number: dict[str, Any] = {"timestamp_in_ms": 1_700_000_000_123}
        message = OutgoingMessage(
            exchange="", routing_key="q", body=b"", message_id="m", headers=number
        )

        with pytest.raises(KeyError):
            field_types(message.frames(1, FRAME_MAX))

    def test_say_when_it_is_given_to_the_broker(self):
        before = time.time_ns() // 1_000_000
        stamp = headers(None)["timestamp_in_ms"]

        assert before <= int(stamp) <= time.time_ns() // 1_000_000

    def test_leave_the_body_to_its_contract(self):
        message = event_message(OrderCreated(**ORDER), Correlation("me", TRACEPARENT))

        assert msgspec.json.decode(message.body).keys() == {"orderId", "productId", "quantity"}
