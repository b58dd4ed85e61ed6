"""Dead letters: collected, corrected, replayed or discarded, on real servers."""

import datetime
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import amqp
import msgspec
import pytest
from django.db import (
    DatabaseError,
    OperationalError,
    close_old_connections,
    connection,
    transaction,
)

from celery_workers.policies import is_trouble_of_ours
from deploy.broker import prepare
from servicekit import failpoints
from servicekit.contracts.events import OrderCreated, StockDecided, StockReleased
from servicekit.database.loop import Loop
from servicekit.dead_letters import services
from servicekit.dead_letters.models import DeadLetter, DeadLetterEvent, Group
from servicekit.dead_letters.recognising import read
from servicekit.dead_letters.services import (
    AlreadyDecided,
    BodyRefused,
    NoteMissing,
    publish_requested,
)
from servicekit.dead_letters.threads import DeadLetterSource, replay_requested, replayer
from servicekit.failpoints import FailpointError
from servicekit.messaging.celery_protocol import task_message
from servicekit.messaging.consumer import ConsumerThread, Handled, Policy, Subscription
from servicekit.messaging.envelope import Received
from servicekit.messaging.publisher import ConfirmingPublisher, PublishingFailed
from servicekit.messaging.topology import dead_letter_queue_name, declare_queue
from tests.servicekit.private_broker import VirtualHost, eventually, unused_port

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("impatient")]

PRODUCT_ID = UUID("0198c0de-0000-7000-8000-00000000000a")
POLICY = Policy(is_held=is_trouble_of_ours, batch_limit=20)
POISON = {"x-dead-letter-reason": "it is poison", "x-dead-letter-routing-key": "order.created"}
Status = DeadLetter.Status


def an_order(quantity: Any = 1, order_id: int = 1) -> bytes:
    return msgspec.json.encode({"orderId": order_id, "productId": PRODUCT_ID, "quantity": quantity})


def history(message: DeadLetter) -> list[str]:
    return [event.what for event in message.events.order_by("id")]


class Consumer(ConsumerThread):
    """One that lets go of the database when it ends, as a worker that ends does."""

    def run(self) -> None:
        try:
            super().run()
        finally:
            connection.close()


class Post:
    """A queue with a consumer, a collector and a replayer, each started when it is wanted."""

    def __init__(self, broker: VirtualHost, *events: Any) -> None:
        self.broker = broker
        self.queue = f"dead-letters-{uuid4()}"
        self.dead = dead_letter_queue_name(self.queue)
        self.applied: list[Any] = []
        self._subscription = Subscription(self.queue, events, self._apply)
        self._threads: list[Any] = []
        place = {"virtual_host": broker.name, "queues": [self.queue]}
        prepare(broker.management_url, queue_type="classic", **place)
        keys = [each.routing_key for each in events]
        with broker.channel() as channel:
            declare_queue(channel, self.queue, exchange=events[0].exchange, keys=keys)

    def _apply(self, batch: Sequence[Received[Any]]) -> Handled:
        self.applied += [each.event for each in batch]
        return Handled()

    def consume(self) -> None:
        self._consume_from(self._subscription)

    def collect(self) -> ConsumerThread:
        return self._consume_from(DeadLetterSource(self.queue))

    def _consume_from(self, source: Any) -> ConsumerThread:
        facts = {"broker_url": self.broker.url, "policy": POLICY}
        return self._start(Consumer(source.queue, [source], **facts))

    def replay(self) -> None:
        self._start(replayer(self.broker.url))

    def _start(self, thread: Any) -> Any:
        self._threads.append(thread)
        thread.start()
        return thread

    def send(self, body: bytes, *, exchange: str = "", key: str = "", **properties: Any) -> None:
        with self.broker.channel() as channel:
            channel.basic_publish(
                amqp.Message(body, **properties), exchange=exchange, routing_key=key or self.queue
            )

    def bury(self, body: bytes, **properties: Any) -> None:
        """Put poison where a consumer would."""
        headers = {**POISON, "x-dead-letter-from": self.queue}
        self.send(body, key=self.dead, application_headers=headers, **properties)

    def dead_letters(self, *, count: int = 1, status: str = Status.WAITING) -> list[DeadLetter]:
        """Wait until this many messages have a status, and return them."""
        rows = DeadLetter.objects.filter(queue=self.queue, status=status).order_by("id")
        eventually(lambda: rows.count() == count)
        return list(rows)

    def close(self) -> None:
        for thread in self._threads:
            thread.stop()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
            if isinstance(thread, Loop):
                thread._work.args[0].close()
        self._threads.clear()


@pytest.fixture
def open_post(broker) -> Iterator[Callable[..., Post]]:
    opened: list[Post] = []

    def open_for(*events: Any) -> Post:
        opened.append(Post(broker, *events))
        return opened[-1]

    yield open_for
    for post in opened:
        post.close()
        broker.delete_queue(post.queue)
        broker.delete_queue(post.dead)


@pytest.fixture
def post(open_post) -> Post:
    return open_post(OrderCreated)


def keep(post: Post, body: bytes = b"poison", **properties: Any) -> DeadLetter:
    """Store one dead letter without a broker."""
    letter = read(post.queue, body, POISON, {"message_id": str(uuid4()), **properties})
    services.collect([letter])
    return DeadLetter.objects.get(message_id=letter.message_id)


class TestCollecting:
    def test_takes_what_a_consumer_has_dead_letters_with_its_reason(self, post, broker):
        post.consume()
        post.collect()
        body = an_order(quantity=0)
        address = {"exchange": "order.exchange", "key": "order.created"}
        post.send(body, **address, message_id="m-1", correlation_id="c-1")

        [message] = post.dead_letters()
        assert bytes(message.body) == body
        assert message.reason.startswith("order.created: ")
        assert (message.routing_key, message.message_id) == ("order.created", "m-1")
        assert (message.correlation_id, message.times_seen) == ("c-1", 1)
        assert history(message) == ["RECEIVED"]
        post.close()
        assert broker.count(post.dead) == 0

    def test_takes_what_the_broker_has_dead_lettered_by_itself(self, post):
        post.send(b"rejected", message_id="m-1")
        with post.broker.channel() as channel:
            channel.basic_reject(channel.basic_get(post.queue).delivery_tag, requeue=False)
        post.collect()

        [message] = post.dead_letters()
        assert "rejected" in message.reason
        assert message.headers["x-death"][0]["queue"] == post.queue

    @pytest.mark.parametrize("known_by", [{"message_id": "m-1"}, {}], ids=["its id", "its body"])
    def test_counts_the_same_message_and_keeps_it_once(self, post, known_by):
        post.collect()
        for _ in range(3):
            post.bury(b"poison", **known_by)
        eventually(lambda: DeadLetter.objects.filter(times_seen=3).exists())

        [message] = post.dead_letters()
        assert message.last_seen > message.first_seen
        assert history(message) == ["RECEIVED"]

    def test_tells_other_bodies_and_other_ids_apart(self, post):
        post.collect()
        post.bury(b"poison", message_id="m-1")
        post.bury(b"poison", message_id="m-2")
        post.bury(b"other", message_id="m-1")

        assert len(post.dead_letters(count=3)) == 3

    @pytest.mark.parametrize(
        "value",
        [
            "nul \x00 inside",
            b"\xff\x00",
            datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
            {"deep": [{"er": [None, True, 2**40, 1.5]}]},
        ],
        ids=["nul", "bytes", "time", "nested"],
    )
    def test_takes_whatever_a_stranger_puts_into_headers(self, post, value):
        post.collect()
        post.send(b"poison", key=post.dead, application_headers={"theirs": value})

        [message] = post.dead_letters()
        assert "theirs" in message.headers
        assert message.reason == "nobody said why"

    def test_leaves_everything_in_the_queue_while_the_database_is_away(
        self, post, broker, monkeypatch
    ):
        attempts = []

        def be_away(letters: Sequence[Any]) -> int:
            attempts.append(len(letters))
            raise OperationalError("away")

        with monkeypatch.context() as patched:
            patched.setattr(services, "collect", be_away)
            collector = post.collect()
            post.bury(b"poison", message_id="m-1")
            eventually(lambda: len(attempts) >= 3)
            collector.stop()
            collector.join(10)
        eventually(lambda: broker.count(post.dead) == 1)
        post.collect()

        [message] = post.dead_letters()
        assert message.times_seen == 1

    def test_stores_a_message_again_that_it_had_no_time_to_acknowledge(self, post, monkeypatch):
        commits: list[str] = []

        def lose_the_connection_once(name: str) -> None:
            if name == "dead_letters.collect.after_commit":
                commits.append(name)
                if len(commits) == 1:
                    collector._connection.connection.transport.sock.shutdown(2)

        monkeypatch.setattr(services, "failpoint", lose_the_connection_once)
        collector = post.collect()
        post.bury(b"poison", message_id="m-1")
        eventually(lambda: DeadLetter.objects.filter(times_seen=2).exists())

        [message] = post.dead_letters()
        assert history(message) == ["RECEIVED"]
        post.close()
        assert post.broker.count(post.dead) == 0

    def test_keeps_whatever_a_stranger_calls_it(self):
        # Longer than an index takes, however well it is compressed.
        name = "".join(str(uuid4()) for _ in range(300))
        names = dict.fromkeys(("x-dead-letter-routing-key", "x-dead-letter-reason"), name)
        services.collect([read("product_order_queue", b"poison", names, {})])

        [message] = DeadLetter.objects.all()
        assert (message.routing_key, len(message.kind)) == (name, 200)


class TestEditing:
    def test_keeps_the_body_that_came_and_records_who_changed_it(self, post):
        message = keep(post, b"poison")
        services.edit_body(message.pk, b"medicine", by="ada")

        message.refresh_from_db()
        assert (bytes(message.body), message.current_body) == (b"poison", b"medicine")
        event = message.events.get(what="EDITED")
        assert (event.who, bytes(event.body_before)) == ("ada", b"poison")
        assert bytes(event.body_after) == b"medicine"

    def test_that_changes_nothing_leaves_no_trace_and_back_to_the_original_is_none(self, post):
        message = keep(post, b"poison")
        services.edit_body(message.pk, b"poison", by="ada")
        assert history(message) == ["RECEIVED"]

        services.edit_body(message.pk, b"medicine", by="ada")
        services.edit_body(message.pk, b"poison", by="ada")
        message.refresh_from_db()
        assert message.edited_body is None

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            (b"medicine", "order.created: JSON is malformed"),
            (an_order(quantity=0), "order.created: Expected `int` >= 1"),
            (an_order() + b" " * 1024 * 1024, "larger than 1048576 bytes"),
        ],
        ids=["no JSON", "no such order", "too large"],
    )
    def test_saves_nothing_that_the_consumer_of_the_queue_would_not_take(self, body, reason):
        letter = read("product_order_queue", b"poison", POISON, {"message_id": "m-1"})
        services.collect([letter])
        message = DeadLetter.objects.get()
        for and_replay in (False, True):
            with pytest.raises(BodyRefused, match=f"^{reason}"):
                services.edit_body(message.pk, body, by="ada", and_replay=and_replay)

        message.refresh_from_db()
        assert (message.edited_body, history(message)) == (None, ["RECEIVED"])
        assert message.status == Status.WAITING

    def test_is_refused_once_it_is_decided(self, post):
        message = keep(post)
        services.request_replay([message.pk], by="ada")

        with pytest.raises(AlreadyDecided):
            services.edit_body(message.pk, b"late", by="bob")


class TestReplaying:
    def test_applies_a_corrected_message(self, post):
        post.consume()
        post.collect()
        post.send(an_order(quantity=0), exchange="order.exchange", key="order.created")
        [message] = post.dead_letters()
        services.edit_body(message.pk, an_order(quantity=3), by="ada")
        services.request_replay([message.pk], by="ada")
        post.replay()
        eventually(lambda: len(post.applied) == 1)

        assert post.applied[0].quantity == 3
        [message] = post.dead_letters(status=Status.REPLAYED)
        assert history(message) == ["RECEIVED", "EDITED", "REPLAY_REQUESTED", "REPLAYED"]

    def test_says_which_event_it_is_where_a_queue_has_several(self, open_post):
        post = open_post(StockDecided, StockReleased)
        post.consume()
        post.collect()
        facts = {"orderId": 1, "productId": PRODUCT_ID, "quantity": 1, "remaining": 1, "version": 1}
        wrong = msgspec.json.encode({**facts, "quantity": 0})
        post.send(wrong, exchange="product.exchange", key="stock.released")
        [message] = post.dead_letters()
        right = msgspec.json.encode(facts)
        services.edit_body(message.pk, right, by="ada")
        services.request_replay([message.pk], by="ada")
        post.replay()
        eventually(lambda: len(post.applied) == 1)

        assert isinstance(post.applied[0], StockReleased)

    def test_that_did_not_help_brings_it_back_as_the_same_message(self, post):
        post.consume()
        post.collect()
        post.send(b"poison", message_id="m-1")
        [message] = post.dead_letters()
        services.edit_body(message.pk, b"worse", by="ada")
        services.request_replay([message.pk], by="ada")
        post.replay()
        eventually(lambda: "CAME_BACK" in history(message))

        [message] = post.dead_letters()
        assert message.times_seen == 2
        assert DeadLetter.objects.count() == 1

    def test_rebuilds_a_task_as_celery_sent_it(self, post, publisher):
        sent = task_message(
            task="orders.persist_orders", queue=post.queue, task_id=uuid4(), kwargs={"orders": []}
        )
        publisher.publish([sent])
        with post.broker.channel() as channel:
            channel.auto_decode = False
            original = channel.basic_get(post.queue)
            channel.basic_reject(original.delivery_tag, requeue=False)
        post.collect()
        [message] = post.dead_letters()
        services.request_replay([message.pk], by="ada")
        publish_requested(publisher, limit=10)

        [replayed] = post.broker.take(post.queue, count=1)
        assert bytes(replayed.body) == bytes(original.body)
        assert replayed.headers == original.headers
        # When it was sent is the only difference.
        assert {**replayed.properties, "timestamp": 0} == {**original.properties, "timestamp": 0}

    def test_is_held_while_the_broker_is_away(self, post, publisher):
        message = keep(post)
        services.request_replay([message.pk], by="ada")
        away = ConfirmingPublisher(f"amqp://a:b@127.0.0.1:{unused_port()}//")
        with pytest.raises(PublishingFailed):
            publish_requested(away, limit=10)

        [message] = post.dead_letters(status=Status.REPLAY_REQUESTED)
        assert publish_requested(publisher, limit=10) == 1
        assert len(post.broker.take(post.queue, count=1)) == 1

    def test_again_after_a_crash_sends_the_same_message_and_is_harmless(
        self, post, publisher, monkeypatch
    ):
        message = keep(post)
        services.request_replay([message.pk], by="ada")
        with monkeypatch.context() as patched:
            patched.setattr(failpoints, "_ACTIONS", {"dead_letters.replay.after_confirm": "raise"})
            with pytest.raises(FailpointError):
                publish_requested(publisher, limit=10)
        publish_requested(publisher, limit=10)

        sent = post.broker.take(post.queue, count=2)
        assert {each.properties["message_id"] for each in sent} == {message.message_id}
        [message] = post.dead_letters(status=Status.REPLAYED)
        assert history(message) == ["RECEIVED", "REPLAY_REQUESTED", "REPLAYED"]

    def test_into_a_queue_that_is_gone_parks_it_again(self, post, publisher):
        message = keep(post)
        services.request_replay([message.pk], by="ada")
        post.broker.delete_queue(post.queue)
        publish_requested(publisher, limit=10)

        [message] = post.dead_letters()
        assert history(message)[-1] == "REPLAY_FAILED"

    def test_takes_no_more_at_once_than_its_limit(self, post, publisher):
        messages = [keep(post) for _ in range(5)]
        services.request_replay([message.pk for message in messages], by="ada")

        assert publish_requested(publisher, limit=3) == 3
        assert len(post.dead_letters(count=2, status=Status.REPLAY_REQUESTED)) == 2

    def test_takes_no_more_bytes_at_once_than_its_limit(self, post, publisher):
        messages = [keep(post) for _ in range(5)]
        services.request_replay([message.pk for message in messages], by="ada")
        size = len(messages[0].current_body)

        assert publish_requested(publisher, limit=10, limit_bytes=2 * size) == 2
        # One at least, whatever its size.
        assert publish_requested(publisher, limit=10, limit_bytes=1) == 1
        assert post.broker.count(post.queue) == 3

    def test_sends_no_more_per_second_than_agreed(self, post, publisher, settings):
        assert replayer(post.broker.url)._every_seconds == 1.0
        settings.REPLAYS_PER_SECOND = 20
        messages = [keep(post) for _ in range(45)]
        services.request_replay([message.pk for message in messages], by="ada")

        # A second's worth, and the loop has to pause: it is not told that there was something.
        assert not replay_requested(publisher)
        assert len(post.dead_letters(count=20, status=Status.REPLAYED)) == 20
        assert post.broker.count(post.queue) == 20
        for _ in range(2):
            replay_requested(publisher)
        assert post.broker.count(post.queue) == 45

    def test_by_many_people_at_once_happens_once(self, post, publisher):
        message = keep(post)
        together = threading.Barrier(8)
        refused: list[AlreadyDecided] = []

        def ask(name: str) -> None:
            together.wait(60)
            try:
                services.request_replay([message.pk], by=name)
            except AlreadyDecided as error:
                refused.append(error)
            finally:
                connection.close()

        with ThreadPoolExecutor(8) as people:
            list(people.map(ask, [f"person {n}" for n in range(8)]))
        close_old_connections()
        publish_requested(publisher, limit=10)

        assert len(refused) == 7
        assert history(message) == ["RECEIVED", "REPLAY_REQUESTED", "REPLAYED"]
        assert len(post.broker.take(post.queue, count=1)) == 1

    def test_of_several_is_all_or_nothing(self, post):
        decided, waiting = keep(post), keep(post)
        services.discard([decided.pk], by="ada", note="no use")

        with pytest.raises(AlreadyDecided):
            services.request_replay([decided.pk, waiting.pk], by="bob")
        assert post.dead_letters() == [waiting]


class TestDecidingAboutAGroup:
    @pytest.fixture
    def alike(self, post, monkeypatch) -> list[DeadLetter]:
        monkeypatch.setattr(services, "DECIDED_TOGETHER", 2)
        return [keep(post, b"poison %d" % number) for number in range(5)]

    @staticmethod
    def group(message: DeadLetter) -> dict[str, Any]:
        return {"group": Group(message.queue, message.routing_key, message.kind)}

    def test_takes_all_that_wait_and_none_that_come_meanwhile(self, post, alike):
        services.discard([alike[2].pk], by="bob", note="no use")
        last = keep(post, b"too late")
        asked = services.request_replay_of_group(**self.group(last), up_to=alike[-1].pk, by="ada")

        assert asked == 4
        waiting = post.dead_letters(count=4, status=Status.REPLAY_REQUESTED)
        assert waiting == [message for message in alike if message != alike[2]]
        assert {each.events.get(what="REPLAY_REQUESTED").who for each in waiting} == {"ada"}
        assert post.dead_letters() == [last]

    def test_takes_none_of_another_reason_queue_or_event(self, post, alike):
        others = [
            read(queue, b"poison", {**POISON, **headers}, {"message_id": str(uuid4())})
            for queue, headers in (
                ("another", {}),
                (post.queue, {"x-dead-letter-reason": "another"}),
                (post.queue, {"x-dead-letter-routing-key": "another"}),
            )
        ]
        services.collect(others)
        facts = {"up_to": 2**63 - 1, "by": "ada", "note": "no use"}

        assert services.discard_group(**self.group(alike[0]), **facts) == 5
        assert DeadLetter.objects.filter(status=Status.WAITING).count() == 3
        assert {each.note for each in DeadLetterEvent.objects.filter(what="DISCARDED")} == {
            "no use"
        }

    def test_discards_none_without_a_note(self, post, alike):
        with pytest.raises(NoteMissing):
            services.discard_group(**self.group(alike[0]), up_to=2**62, by="ada", note=" ")

        assert len(post.dead_letters(count=5)) == 5

    @pytest.mark.parametrize(
        "reasons",
        [
            ("Expected `int` at `$.a[3]`", "Expected `int` at `$.a[71]`"),
            (f"no product {uuid4()}", f"no product {uuid4()}"),
            ("larger than 1048576 bytes: 1048577", "larger than 1048576 bytes: 99999999"),
        ],
    )  # fmt: skip
    def test_is_the_same_reason_whatever_its_figures_and_ids(self, post, reasons):
        for reason in reasons:
            headers = {**POISON, "x-dead-letter-reason": reason}
            services.collect([read(post.queue, reason.encode(), headers, {})])

        assert DeadLetter.objects.values("kind").distinct().count() == 1


class TestDiscarding:
    def test_needs_a_note_is_recorded_with_it_and_keeps_the_message(self, post):
        message = keep(post)
        with pytest.raises(NoteMissing):
            services.discard([message.pk], by="ada", note="  ")
        services.discard([message.pk], by="ada", note="a test of the vendor")

        [message] = post.dead_letters(status=Status.DISCARDED)
        event = message.events.get(what="DISCARDED")
        assert (event.who, event.note) == ("ada", "a test of the vendor")
        assert bytes(message.body) == b"poison"

    def test_does_not_hide_the_message_when_it_comes_again(self, post):
        message = keep(post, b"poison", message_id="m-1")
        services.discard([message.pk], by="ada", note="no use")
        keep(post, b"poison", message_id="m-1")

        [message] = post.dead_letters()
        assert history(message) == ["RECEIVED", "DISCARDED", "CAME_BACK"]


class TestTheHistory:
    @pytest.mark.parametrize("statement", ["UPDATE {} SET who = 'nobody'", "DELETE FROM {}"])
    def test_cannot_be_changed(self, post, statement):
        keep(post)
        table = DeadLetterEvent._meta.db_table

        with (
            pytest.raises(DatabaseError, match="append-only"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute(statement.format(table))
