"""What strangers send: noise, good messages, and good ones with something wrong in them."""

import copy
import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

import amqp
from django.db import connection
from hypothesis import strategies as st

from celery_workers.policies import is_trouble_of_ours
from servicekit.messaging.consumer import ConsumerThread, Handled, Policy
from servicekit.messaging.envelope import Received
from servicekit.messaging.topology import dead_letter_queue_name
from tests.servicekit.private_broker import VirtualHost, eventually

WRONG = [
    None, True, 0, -1, 1, 2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**63, 10**400, 1.5, 5.0, 1e308,
    float("nan"), float("-inf"), "", "5", "a\u0000b", "\ud800", "\U0001f600", "x" * 65,
    "x" * 70_000, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999-14:00", "2026-11-23T10:00",
    "0198c0de-0000-7000-8000-00000000000a", "0198C0DE-0000-7000-8000-00000000000A",
    [], {}, [[[[]]]], {"a": {"b": [None]}},
]  # fmt: skip
values = st.recursive(
    st.sampled_from(WRONG) | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
WAYS = [
    *["replace"] * 3, "as it is", "delete", "add", "double", "cut", "flip", "noise", "json",
]  # fmt: skip


def as_json(value: Any) -> bytes:
    """Return the JSON of a value, also of one that JSON does not know."""
    return json.dumps(value).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, (dict, list)):
        for key in [*value] if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


@st.composite
def messages(draw: Any, good: dict[str, Any]) -> bytes:
    """Return a body that is as good as the one given, or not."""
    way, spoiled = draw(st.sampled_from(WAYS)), copy.deepcopy(good)
    if way == "noise":
        return draw(st.binary(max_size=100))
    if way == "json":
        return as_json(draw(values))
    where, key = draw(st.sampled_from(list(_places(spoiled))))
    if way == "replace":
        where[key] = draw(values)
    elif way == "delete":
        del where[key]
    elif way == "add" and isinstance(where, dict):
        where[draw(st.text())] = draw(values)
    body = as_json(spoiled)
    at = draw(st.integers(0, 1000)) % len(body)
    if way == "double":
        return body[:-1] + b',"quantity":' + as_json(draw(values)) + b"}"
    if way == "cut":
        return body[:at]
    if way == "flip":
        return body[:at] + bytes([body[at] ^ 1 << draw(st.integers(0, 7))]) + body[at + 1 :]
    return body


class Letterbox:
    """A queue of our own with a consumer on it that handles what comes as a worker does."""

    def __init__(self, broker: VirtualHost, source: Any, **properties: Any) -> None:
        self.applied: list[Any] = []
        self._handle = source.handle
        self._properties = properties
        self._queue = f"noise-{uuid4()}"
        self._broker = broker
        self._consumer = ConsumerThread(
            self._queue,
            [dataclasses.replace(source, queue=self._queue, handle=self._apply)],
            broker_url=broker.url,
            policy=Policy(is_held=is_trouble_of_ours),
        )
        self._consumer.start()
        eventually(lambda: self._consumer.is_consuming)

    def _apply(self, batch: Sequence[Received[Any]]) -> Handled:
        try:
            handled = self._handle(batch)
        finally:
            connection.close()
        refused = {id(each.event) for each in handled.unprocessable}
        self.applied += [each.event for each in batch if id(each.event) not in refused]
        # Nobody takes the answers here.
        return dataclasses.replace(handled, on_unwanted=None)

    def send(self, bodies: Sequence[bytes]) -> tuple[list[Any], list[bytes]]:
        """Return what was applied, and what was dead-lettered: all is one or the other."""
        self.applied.clear()
        letters: list[bytes] = []
        with self._broker.channel() as channel:
            channel.auto_decode = False
            for body in bodies:
                channel.basic_publish(
                    amqp.Message(body, **self._properties), routing_key=self._queue
                )

            def is_done() -> bool:
                dead = dead_letter_queue_name(self._queue)
                while message := channel.basic_get(dead, no_ack=True):
                    letters.append(bytes(message.body or b""))
                return len(self.applied) + len(letters) >= len(bodies)

            eventually(is_done, within_seconds=30)
        assert len(self.applied) + len(letters) == len(bodies)
        assert not Counter(letters) - Counter(bodies)
        return list(self.applied), letters

    def close(self) -> None:
        """End it; nothing is left in its queue."""
        self._consumer.stop()
        self._consumer.join(10)
        assert self._broker.count(self._queue) == 0
        for queue in (self._queue, dead_letter_queue_name(self._queue)):
            self._broker.delete_queue(queue)
