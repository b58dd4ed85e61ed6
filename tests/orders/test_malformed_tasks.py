"""Whatever a stranger sends to the queue of tasks of a running worker: stored, or a dead letter.

What the worker of Celery itself does about such messages is to drop them, to end, or to wait.
"""

import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import amqp
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from orders_project.orders.commands import AcceptedOrder, PersistOrders
from orders_project.orders.models import Order
from servicekit.dead_letters import replays
from servicekit.dead_letters.models import DeadLetter
from servicekit.identifiers import new_id
from servicekit.messaging.celery_protocol import task_message
from tests.orders.ordering import an_order
from tests.servicekit.private_broker import VirtualHost, eventually
from tests.servicekit.worker import running_worker
from tools.chaos.proxy import Fault, Proxy

pytestmark = pytest.mark.django_db(transaction=True)

EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
# Stands for a keyword argument with one good order.
ORDERS = "ORDERS"
PICKLE = "application/x-python-serialize"


@pytest.fixture(scope="module")
def line(broker) -> Iterator[Proxy]:
    with Proxy(broker.url) as line:
        yield line


@pytest.fixture(scope="module")
def worker(broker, line, django_db_setup, tmp_path_factory) -> Iterator[Any]:  # noqa: ARG001 - its database
    through_the_line, directory = replace(broker, url=line.url), tmp_path_factory.mktemp("worker")
    with running_worker("orders", through_the_line, directory) as running:
        yield running


class Sender:
    """Puts messages into the queue of the tasks."""

    def __init__(self, broker: VirtualHost) -> None:
        self._broker = broker

    def send(self, body: bytes, headers: Any, **properties: Any) -> None:
        with self._broker.channel() as channel:
            if headers is not None:
                properties["application_headers"] = headers
            channel.basic_publish(
                amqp.Message(body, **{"content_type": "application/json", **properties}),
                routing_key=PersistOrders.queue,
            )

    def send_good(self) -> UUID:
        """Ask for one order as a web process does."""
        order = an_order()
        self.send(body_of(order), headers_of_a_task())
        return order.id


def headers_of_a_task(**changes: Any) -> dict[str, Any]:
    """The headers that a web process writes, with changes; `...` leaves one out."""
    message = task_message(
        task=PersistOrders.task_name, queue=PersistOrders.queue, task_id=new_id(), kwargs={}
    )
    headers = {**message.headers, **changes}
    return {name: value for name, value in headers.items() if value is not ...}


def body_of(order: AcceptedOrder) -> bytes:
    return msgspec.json.encode([[], {"orders": [order]}, EMBED])


@pytest.fixture
def sender(broker, worker) -> Sender:  # noqa: ARG001 - it is there
    return Sender(broker)


def is_stored(*order_ids: UUID) -> bool:
    return Order.objects.filter(id__in=order_ids).count() == len(order_ids)


BODIES = {
    "nothing": b"",
    "null": b"null",
    "a number": b"5",
    "a string": b'"text"',
    "an object": b"{}",
    "an empty list": b"[]",
    "a list of numbers": b"[1,2,3]",
    "two of three parts": b'[[],{"orders":[]}]',
    "four parts": b'[[],{"orders":[]},{},{}]',
    "words": b"hello",
    "cut off": msgspec.json.encode([[], {"orders": []}, EMBED])[:-7],
    "bad UTF-8": b"\xff\xfe\x00",
    "bad UTF-8 inside": b'[[],{"orders":[{"id":"\xff"}]},{}]',
    "NUL": b"\x00" * 100,
    "compressed": zlib.compress(msgspec.json.encode([[], {"orders": []}, EMBED])),
    "positional arguments": b'[[1],{"orders":[]},{}]',
    "positional arguments of an object": b'[{},{"orders":[]},{}]',
    "keywords of a list": b"[[],[],{}]",
    "keywords of null": b"[[],null,{}]",
    "keywords of a string": b'[[],"orders",{}]',
    "no keyword": b"[[],{},{}]",
    "another keyword": b'[[],{"order":[]},{}]',
    "orders of null": b'[[],{"orders":null},{}]',
    "orders of an object": b'[[],{"orders":{}},{}]',
    "an order of null": b'[[],{"orders":[null]},{}]',
    "an order of nothing": b'[[],{"orders":[{}]},{}]',
    "nested 1 MB deep": b"[" * 1_000_000,
    "orders nested 1 MB deep": b'[[],{"orders":' + b"[" * 500_000 + b"]" * 500_000 + b"},{}]",
    "10 MB": b"x" * 10_000_000,
}
HEADERS = {
    "none at all": None,
    "empty": {},
    "without a task": headers_of_a_task(task=...),
    "a task of null": headers_of_a_task(task=None),
    "a task of a number": headers_of_a_task(task=5),
    "a task of a list": headers_of_a_task(task=["orders.persist_orders"]),
    "a task of an object": headers_of_a_task(task={"a": {"b": []}}),
    "a task that is not there": headers_of_a_task(task="orders.no_such_task"),
    "a task of Celery's own": headers_of_a_task(task="celery.backend_cleanup"),
    "a task of bytes": headers_of_a_task(task=b"\xff\xfe"),
}
# They decide nothing here: an accepted order is stored, however late and however it is called.
UNHEEDED = {
    "no id": {"id": ...},
    "an id of a list": {"id": [1]},
    "an id of a number": {"id": 7},
    "expired": {"expires": "2001-01-01T00:00:00+00:00"},
    "an expiry of nonsense": {"expires": "tomorrow"},
    "an expiry of a list": {"expires": [1]},
    "an eta in 2099": {"eta": "2099-01-01T00:00:00+00:00"},
    "an eta of nonsense": {"eta": {"a": 1}},
    "a time limit of one": {"timelimit": [1]},
    "a time limit of text": {"timelimit": "soon"},
    "a time limit of an object": {"timelimit": {}},
    "a time limit that is over": {"timelimit": [-1, -1]},
    "retries of text": {"retries": "many"},
    "many retries": {"retries": 1_000_000},
    "an unhashable shadow": {"shadow": {"a": []}},
    "argsrepr of a list": {"argsrepr": [1], "kwargsrepr": {"a": 1}},
    "ids of nonsense": {"root_id": [1], "parent_id": {}, "group": 5},
    "an unknown compression": {"compression": "no-such-compression"},
    "a compression of a list": {"compression": ["zlib"]},
    "an unknown language": {"lang": "cobol"},
    "a stranger's": {"theirs": [{"deep": [{"er": [None, True, 2**40]}]}]},
    "stamps": {"stamped_headers": 5, "stamps": []},
}
PROPERTIES = {
    "a pickle's type": {"content_type": PICKLE},
    "an unknown type": {"content_type": "text/x-nonsense"},
    "an unknown encoding": {"content_encoding": "no-such-encoding"},
    "a binary encoding": {"content_encoding": "binary"},
    "half a character": {"correlation_id": "\ud800", "reply_to": "\ud800", "type": "\ud800"},
}


class TestAMessageThatIsNoSuchTask:
    @staticmethod
    def assert_dead_letters(sender: Sender, body: bytes, headers: Any, **properties: Any) -> None:
        """It is dead-lettered once, untouched and with a reason, and its neighbours are stored."""
        before = sender.send_good()
        sender.send(body, headers, **properties)
        after = sender.send_good()
        eventually(DeadLetter.objects.exists)
        eventually(lambda: is_stored(before, after))

        [letter] = DeadLetter.objects.all()
        assert (letter.queue, bytes(letter.body)) == (PersistOrders.queue, body)
        assert letter.reason not in ("", "nobody said why")
        assert letter.times_seen == 1
        # The admin says the same of it, as far as its headers are kept: those that are text.
        assert replays.refusal(letter).startswith(letter.reason.partition(", but ")[0])

    @pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
    def test_by_its_body_is_dead_lettered(self, sender, body):
        self.assert_dead_letters(sender, body, headers_of_a_task())

    @pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS.keys())
    def test_by_its_headers_is_dead_lettered(self, sender, headers):
        self.assert_dead_letters(sender, body_of(an_order()), headers)
        [letter] = DeadLetter.objects.all()
        assert letter.reason.startswith("not the task orders.persist_orders")

    @pytest.mark.parametrize("content_type", [PICKLE, "application/json", "application/x-yaml"])
    def test_but_a_pickle_is_dead_lettered(self, sender, content_type):
        body = b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00K\x01."

        self.assert_dead_letters(
            sender, body, headers_of_a_task(), content_type=content_type, content_encoding="binary"
        )

    @pytest.mark.parametrize("name", ["content_type", "correlation_id", "message_id", "reply_to"])
    def test_by_properties_that_cannot_be_read_is_dead_lettered(self, sender, name):
        # Its headers are among them.
        self.assert_dead_letters(
            sender, body_of(an_order()), headers_of_a_task(), **{name: b"\xff\xfe"}
        )

    def test_says_what_is_wrong_with_an_order(self, sender):
        wrong = msgspec.json.encode([[], {"orders": [{"id": str(new_id())}]}, EMBED])
        self.assert_dead_letters(sender, wrong, headers_of_a_task())

        [letter] = DeadLetter.objects.all()
        assert "missing required field `productId`" in letter.reason


class TestAGoodOrder:
    @staticmethod
    def assert_stored(
        sender: Sender, headers: Any = None, embed: Any = EMBED, more: Any = None, **properties: Any
    ) -> None:
        order = an_order()
        body = msgspec.json.encode([[], {"orders": [order], **(more or {})}, embed])
        sender.send(body, headers or headers_of_a_task(), **properties)
        after = sender.send_good()
        eventually(lambda: is_stored(order.id, after))

        assert not DeadLetter.objects.exists()

    @pytest.mark.parametrize("changes", UNHEEDED.values(), ids=UNHEEDED.keys())
    def test_is_stored_whatever_else_its_headers_say(self, sender, changes):
        self.assert_stored(sender, headers_of_a_task(**changes))

    @pytest.mark.parametrize("properties", PROPERTIES.values(), ids=PROPERTIES.keys())
    def test_is_stored_whatever_its_properties_say(self, sender, properties):
        self.assert_stored(sender, **properties)

    @pytest.mark.parametrize(
        "embed", [{}, None, [], {"callbacks": [{"task": "a"}], "chain": 5, "chord": []}]
    )
    def test_is_stored_whatever_is_to_follow(self, sender, embed):
        self.assert_stored(sender, embed=embed)

    def test_is_stored_beside_a_keyword_that_nobody_knows_yet(self, sender):
        # A newer web process may say more.
        self.assert_stored(sender, more={"more": 1})

    def test_is_announced(self, sender, broker):
        queue = f"announced-{new_id()}"
        broker.declare_queue(queue)
        broker.bind(queue, "order.exchange", "order.created")
        order_id = sender.send_good()

        [message] = broker.take(queue, count=1)
        assert msgspec.json.decode(message.body)["orderId"] == str(order_id)
        broker.delete_queue(queue)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
# As AMQP can carry them: names of 255 bytes at most, integers of 64 bits.
TABLE_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(min_size=1, max_size=60), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def broken_bodies(draw: st.DrawFn) -> bytes:
    """Something else than a task's body, or one that was cut off."""
    good = body_of(an_order())
    kinds = [
        st.binary(),
        JSON.map(msgspec.json.encode),
        st.tuples(JSON, JSON, JSON)
        .map(msgspec.json.encode)
        .filter(lambda body: body[1:4] != b"[],"),
        st.integers(0, len(good) - 1).map(lambda end: good[:end]),
    ]
    return draw(st.one_of(kinds))


class TestWhateverAStrangerMakesUp:
    NAMES = st.sampled_from(
        ["id", "task", "eta", "expires", "timelimit", "retries", "shadow", "argsrepr", "lang",
         "compression", "root_id", "group", "stamps", "ignore_result", "timestamp_in_ms"]
    )  # fmt: skip
    MESSAGES = st.lists(
        st.tuples(
            broken_bodies(),
            st.dictionaries(NAMES | st.text(min_size=1, max_size=60), TABLE_VALUES, max_size=4),
            st.sampled_from(["application/json", PICKLE, "text/plain", ""]),
            st.sampled_from(["utf-8", "binary", "no-such-encoding", ""]),
        ),
        min_size=20,
        max_size=60,
    )

    @settings(
        max_examples=5,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(messages=MESSAGES)
    def test_is_dead_lettered_and_stops_nothing(self, sender, worker, messages):
        marks = {str(new_id()) for _ in messages}
        for mark, (body, headers, content_type, encoding) in zip(marks, messages, strict=True):
            sender.send(
                body, headers_of_a_task(**headers), message_id=mark,
                content_type=content_type, content_encoding=encoding,
            )  # fmt: skip
        good = sender.send_good()

        eventually(lambda: is_stored(good), within_seconds=60)
        dead = DeadLetter.objects.filter(message_id__in=marks)
        eventually(lambda: dead.count() == len(marks), within_seconds=60)
        assert worker.poll() is None


class TestAThousandOfThem:
    def test_stop_nothing(self, sender, worker):
        for _ in range(1000):
            sender.send(b"hello", headers_of_a_task(), message_id="the same")
        good = sender.send_good()

        eventually(lambda: is_stored(good), within_seconds=30)
        eventually(lambda: DeadLetter.objects.filter(times_seen=1000).exists(), within_seconds=60)
        assert DeadLetter.objects.count() == 1
        assert worker.poll() is None


class TestTheRemoteControl:
    BODIES = [
        *(b"", b"hello", b"[]", b"5"),
        *(b'{"method": 5}', b'{"method": "no such", "arguments": 1}'),
    ]

    @pytest.mark.parametrize("content_type", ["application/json", PICKLE])
    def test_drops_what_it_cannot_read_and_answers(self, sender, broker, worker, content_type):
        with broker.channel() as channel:
            for body in self.BODIES:
                channel.basic_publish(
                    amqp.Message(body, content_type=content_type), exchange="orders.pidbox"
                )
        good = sender.send_good()

        eventually(lambda: is_stored(good))
        assert not DeadLetter.objects.exists()
        ping = ["-m", "celery", "-A", "celery_workers.orders", "-b", broker.url, "inspect", "ping"]
        eventually(lambda: not subprocess.run([sys.executable, *ping], check=False).returncode)
        assert worker.poll() is None


class TestABrokerThatFallsSilent:
    # All connections of the worker are made at once: one of these is in the channel of the tasks.
    @pytest.mark.parametrize("frame", [4, 6, 9, 12, 15, 18])
    def test_while_a_channel_is_made_is_left_for_another_attempt(self, line, sender, frame):
        fault = line.arm(Fault("hold", frame, "server"))
        line.cut()
        assert fault.reached.wait(30)
        order_id = sender.send_good()

        eventually(lambda: Order.objects.filter(id=order_id).exists(), within_seconds=60)
        line.heal()
