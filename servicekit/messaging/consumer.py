"""Consuming in batches: what has arrived is handled together, then acknowledged together.

Every message ends in exactly one of three ways: acknowledged after its effect is committed and its
answers are confirmed; put into the dead-letter queue, body untouched, with the reason in a header;
or held, and tried again with growing pauses, while what it needs (database, broker) is away.

The message in hand is the outbox: whoever dies between the commit and the acknowledgement gets it
again, finds its effect committed, and gives the same answers.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

from servicekit import metrics, telemetry
from servicekit.contracts.events import Event, MalformedMessage
from servicekit.correlation import Correlation
from servicekit.failpoints import failpoint
from servicekit.messaging import connections, topology
from servicekit.messaging.backoff import Backoff
from servicekit.messaging.connections import BROKER_ERRORS, BrokerUnavailable
from servicekit.messaging.envelope import (
    OutgoingMessage,
    Received,
    body_of,
    headers_of,
    published_at_ms,
    received,
    short_text,
)
from servicekit.messaging.publisher import ConfirmingPublisher, Outcome, PublishingFailed
from servicekit.threads import StoppableThread, begin_step, end_step

logger = logging.getLogger(__name__)

REASON_HEADER = "x-dead-letter-reason"
_REASON_MAX_LENGTH = 500
# Small but not 0, with which every look for more would be two system calls more.
_ARRIVED_ALREADY_SECONDS = 0.001
_DECLARE_EVERY_SECONDS = 5.0


@dataclass(frozen=True)
class Unprocessable:
    """A message that is well-formed and can never be applied, and why."""

    event: object
    reason: str


@dataclass(frozen=True)
class Handled:
    """What became of a batch: the answers to publish, and the dead letters."""

    answers: Sequence[OutgoingMessage] = ()
    unprocessable: Sequence[Unprocessable] = ()
    on_unwanted: Callable[[Sequence[OutgoingMessage]], object] | None = None
    """Called with the answers that no queue has taken."""


class Source(Protocol):
    """A queue, how its messages are read, and what is done about them."""

    @property
    def queue(self) -> str:
        """The name of the queue."""

    def read(self, delivery: Any) -> Received[Any]:
        """Return what a delivery says.

        :raises MalformedMessage: if it cannot be read, ever
        """

    @property
    def handle(self) -> Callable[[Sequence[Received[Any]]], Handled]:
        """What applies a batch, in order of arrival, as a whole.

        It may get the same messages again and has to answer the same.
        """


class DeclaredSource(Source, Protocol):
    """A source that its consumer declares."""

    def declare(self, channel: Any) -> None:
        """Declare the queue and what belongs to it; again is harmless."""


@dataclass(frozen=True)
class Subscription:
    """Which events come from which queue into which function."""

    queue: str
    events: tuple[type[Event], ...]
    handle: Callable[[Sequence[Received[Any]]], Handled]

    def declare(self, channel: Any) -> None:
        """Declare the queue, bound to the one exchange that the events come from."""
        keys = [event.routing_key for event in self.events]
        topology.declare_queue(channel, self.queue, exchange=self.events[0].exchange, keys=keys)

    def read(self, delivery: Any) -> Received[Event]:
        """Return the event in a delivery.

        :raises MalformedMessage: if it is none of ours
        """
        return received(self.contract_of(delivery).from_json(body_of(delivery)), delivery)

    def contract_of(self, delivery: Any) -> type[Event]:
        """Return the contract of a delivery's body.

        :raises MalformedMessage: if neither its routing key nor its type says which
        """
        routing_key = delivery.delivery_info["routing_key"]
        # A message that was put back into the queue by hand has the queue's name as routing key,
        # and one from an older producer has no type.
        for event in self.events:
            if event.routing_key in (routing_key, delivery.properties.get("type")):
                return event
        if len(self.events) == 1:
            return self.events[0]
        raise MalformedMessage(f"neither routing key {routing_key!r} nor type says what this is")


class Pump(Protocol):
    """A connection that hands over deliveries while somebody drains it."""

    @property
    def is_stopping(self) -> bool:
        """Whether whoever uses it was asked to end."""

    def drain(self, timeout_seconds: float) -> bool:
        """Take what the broker sends next; return whether it sent anything in time."""

    def beat(self) -> None:
        """Tell the broker that we are still there, and take nothing."""


class Stopped(ConnectionError):
    """The consumer was asked to end while it held messages; they are delivered again."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How much is handled together, how often, and which errors are waited out."""

    is_held: Callable[[Exception], bool]
    """Whether an error is trouble of ours (a database that is away) and not the message's."""
    before_batch: Callable[[], None] = lambda: None
    pace_seconds: float = 0.0
    """A batch starts at most this often, and at once after a pause: batches grow with the load."""
    batch_limit: int = 500
    batch_limit_bytes: int = 1024 * 1024
    message_limit_bytes: int | None = 1024 * 1024
    """A larger one is a dead letter, unread: ours have a third of this, with 500 orders each."""

    @property
    def prefetch(self) -> int:
        """Twice the batch, so that the next one arrives while this one is being stored."""
        return self.batch_limit * 2


@dataclass(frozen=True)
class InHand:
    """The messages of a queue that a consumer has taken and not acknowledged; Unix times."""

    count: int
    oldest_at: float | None = None
    """When the broker was given the first of them, if its sender says so."""
    busy_since: float | None = None
    """Since when the consumer has been at its present batch."""


# By queue: the inbox of this process, the last one where a connection was lost.
_inboxes: "dict[str, Inbox]" = {}


def in_hand() -> dict[str, InHand]:
    """Return what this process has in hand of each queue that it consumes."""
    return {queue: inbox.in_hand() for queue, inbox in list(_inboxes.items())}


def read(
    source: Source, delivery: Any, *, limit_bytes: int | None = Policy.message_limit_bytes
) -> Received[Any]:
    """Return what a delivery says; nothing else decides whether a consumer takes it.

    :raises MalformedMessage: if it cannot be read, ever
    """
    # What a stranger packs into ten megabytes may take twenty times as much when it is decoded.
    if limit_bytes is not None and len(delivery.body) > limit_bytes:
        raise MalformedMessage(f"larger than {limit_bytes} bytes: {len(delivery.body)}")
    try:
        return source.read(delivery)
    except MalformedMessage:
        raise
    except Exception as error:
        # A message that breaks the reading in a way nobody has thought of.
        logger.exception("%s: cannot read a message", source.queue, extra=_log_fields(delivery))
        raise MalformedMessage(f"{type(error).__name__}: {error}") from error


class Load:
    """How many bytes of messages the inboxes of one connection hold."""

    bytes = 0


class Inbox:
    """The messages of one queue that have arrived, and what is done about them.

    Inboxes that share a connection share a `load`: who waits for messages of one gets all of them.
    """

    def __init__(
        self,
        source: Source,
        *,
        pump: Pump,
        publisher: ConfirmingPublisher,
        policy: Policy,
        load: Load | None = None,
    ) -> None:
        self._source = source
        self._pump = pump
        self._publisher = publisher
        self._policy = policy
        self._arrived: deque[Any] = deque()
        self._batch: Sequence[Any] = ()
        self._busy_since: float | None = None
        self._load = load or Load()
        self._started_at = 0.0
        self._sizes = metrics.CONSUMER_BATCH.labels(source.queue)
        self._ages = metrics.CONSUMER_MESSAGE_AGE.labels(source.queue)
        self._dead_letters = metrics.CONSUMER_DEAD_LETTERS.labels(source.queue)
        _inboxes[source.queue] = self

    def __len__(self) -> int:
        return len(self._arrived)

    def put(self, delivery: Any) -> None:
        """Take a delivery; callback of the connection that is drained."""
        self._arrived.append(delivery)
        self._load.bytes += len(delivery.body)

    def clear(self) -> None:
        """Forget what has arrived: it was delivered by a connection that is gone."""
        self._load.bytes -= _size_of(self._arrived)
        self._arrived.clear()

    def in_hand(self) -> InHand:
        """Return what is not acknowledged; for other threads, this one may be stuck."""
        batch, stamp = self._batch, None
        with suppress(IndexError):  # there is none, or not any more
            stamp = published_at_ms(headers_of((batch or self._arrived)[0]))
        oldest_at = None if stamp is None else stamp / 1000
        return InHand(len(batch) + len(self._arrived), oldest_at, self._busy_since)

    def process(self) -> None:
        """Handle one batch of what has arrived or arrives within the pace, and acknowledge it.

        :raises Stopped: if the consumer is asked to end meanwhile
        """
        self._busy_since = time.time()
        try:
            self._collect()
            begin_step()
            count = min(len(self._arrived), self._policy.batch_limit)
            self._batch = [self._arrived.popleft() for _ in range(count)]
            self._process(self._batch)
        finally:
            self._load.bytes -= _size_of(self._batch)
            self._batch, self._busy_since = (), None
            end_step()

    def _process(self, deliveries: Sequence[Any]) -> None:
        self._started_at = time.monotonic()
        readable: list[tuple[Any, Received[Any]]] = []
        unreadable: list[tuple[Any, str]] = []
        limit_bytes = self._policy.message_limit_bytes
        for delivery in deliveries:
            try:
                readable.append((delivery, read(self._source, delivery, limit_bytes=limit_bytes)))
            except MalformedMessage as error:
                unreadable.append((delivery, str(error)))
        if readable:
            self._apply(readable)
        # After the others: as long as those are held, all of them may be delivered once more.
        for delivery, reason in unreadable:
            self._bury(delivery, reason)
        # One acknowledgement for all up to here, and only after every one of them is committed
        # or a dead letter.
        if deliveries:
            deliveries[-1].channel.basic_ack(deliveries[-1].delivery_tag, multiple=True)

    def _collect(self) -> None:
        start_at = self._started_at + self._policy.pace_seconds
        while not self._is_full():
            seconds = start_at - time.monotonic()
            arrived = self._pump.drain(max(seconds, _ARRIVED_ALREADY_SECONDS))
            if not arrived and seconds <= 0:
                return

    def _is_full(self) -> bool:
        # Bytes, too: a prefetch of a thousand messages may be of ten megabytes each. What is not
        # read from the socket is kept back by the broker.
        return (
            len(self._arrived) >= self._policy.batch_limit
            or self._load.bytes >= self._policy.batch_limit_bytes
        )

    def _apply(self, batch: list[tuple[Any, Received[Any]]]) -> None:
        backoff = Backoff()
        messages = [each for _, each in batch]
        while True:
            begin_step()
            started = time.monotonic()
            try:
                self._policy.before_batch()
                with telemetry.batch_span(
                    self._source.queue, (source for _, source in _parts(messages))
                ):
                    handled = self._source.handle(messages)
                    self._publish(handled)
                break
            except PublishingFailed as error:
                self._hold(len(batch), backoff.next_seconds(), error)
            except Exception as error:
                if self._policy.is_held(error):
                    self._hold(len(batch), backoff.next_seconds(), error)
                    continue
                if len(batch) == 1:
                    [(delivery, only)] = batch
                    logger.exception(
                        "%s: dead-lettering a message that cannot be applied",
                        self._source.queue,
                        extra=_log_fields(delivery, only),
                    )
                    self._bury(delivery, f"{type(error).__name__}: {error}", only)
                    return
                # One of them is bad. Halves, not singles: the innocent stay together.
                middle = len(batch) // 2
                self._apply(batch[:middle])
                self._apply(batch[middle:])
                return
        self._note(messages, seconds=time.monotonic() - started)
        reasons = {id(refused.event): refused.reason for refused in handled.unprocessable}
        for delivery, each in batch:
            if id(each.event) in reasons:
                self._bury(delivery, reasons[id(each.event)], each)

    def _publish(self, handled: Handled) -> None:
        """Have the broker confirm the answers.

        What no queue wants is not lost: it can be asked for again, and is (by the watchdog).
        """
        if not handled.answers:
            return
        outcomes = self._publisher.publish(handled.answers)
        failpoint("consumer.after_answers")
        unwanted = [
            (answer, outcome)
            for answer, outcome in zip(handled.answers, outcomes, strict=True)
            if outcome is not Outcome.CONFIRMED
        ]
        if unwanted:
            logger.warning(
                "%s: %d answers were %s", self._source.queue, len(unwanted), unwanted[0][1].value
            )
            if handled.on_unwanted is not None:
                handled.on_unwanted([answer for answer, _ in unwanted])

    def _hold(self, count: int, seconds: float, error: Exception) -> None:
        """Pause with a batch in hand, answering heartbeats."""
        logger.warning(
            "%s: holding %d messages for %.1f s: %s", self._source.queue, count, seconds, error
        )
        until = time.monotonic() + seconds
        while (remaining := until - time.monotonic()) > 0:
            begin_step()
            if self._pump.is_stopping:
                raise Stopped("stopped with messages in hand; they are not acknowledged")
            if self._is_full():
                self._pump.beat()
                time.sleep(min(remaining, 0.5))
            else:
                self._pump.drain(min(remaining, 0.5))

    def _note(self, batch: Sequence[Received[Any]], *, seconds: float) -> None:
        """Count and log a batch whose effect is committed."""
        size = sum(len(each.event.parts) for each in batch)
        self._sizes.observe(size)
        now_ms = time.time() * 1000
        for each in batch:
            if each.published_at_ms is not None:
                # Not below 0, which another machine's clock could make it.
                self._ages.observe(max(0.0, now_ms - each.published_at_ms) / 1000)
        # A line costs as much as handling some messages: at DEBUG only.
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug(
                "handled a batch",
                extra={
                    "queue": self._source.queue,
                    "messages": size,
                    "milliseconds": round(seconds * 1000, 1),
                },
            )
            for part, source in _parts(batch):
                logger.debug(
                    "%s: handled %s",
                    self._source.queue,
                    type(part).__name__,
                    extra=_fields_of(part, source),
                )

    def _bury(self, delivery: Any, reason: str, each: Received[Any] | None = None) -> None:
        queue = self._source.queue
        logger.error(
            "%s: dead-lettered a message: %r",
            queue,
            reason[:_REASON_MAX_LENGTH],
            extra=_log_fields(delivery, each),
        )
        source = Correlation.of_headers(headers_of(delivery))
        message = OutgoingMessage(
            exchange="",
            routing_key=topology.dead_letter_queue_name(queue),
            body=body_of(delivery),
            message_id=short_text(delivery.properties.get("message_id")) or str(uuid4()),
            type=short_text(delivery.properties.get("type")),
            correlation_id=short_text(delivery.properties.get("correlation_id")),
            content_type=short_text(delivery.properties.get("content_type"))
            or "application/octet-stream",
            content_encoding=short_text(delivery.properties.get("content_encoding")),
            headers={
                # So that it is what it was, and goes on under its ids, when it is put back.
                **_kept_headers(delivery),
                **(source.headers if source else {}),
                REASON_HEADER: reason[:_REASON_MAX_LENGTH],
                "x-dead-letter-from": queue,
                "x-dead-letter-routing-key": delivery.delivery_info["routing_key"],
            },
        )
        backoff = Backoff()
        while True:
            begin_step()
            try:
                [outcome] = self._publisher.publish([message])
            except PublishingFailed as error:
                self._hold(1, backoff.next_seconds(), error)
                continue
            if outcome is Outcome.CONFIRMED:
                break
            # Not acknowledged then: it comes again, and is a dead letter when its queue is back.
            raise BrokerUnavailable(f"{message.routing_key} did not take it: {outcome}")
        self._dead_letters.inc()


class ConsumerThread(StoppableThread):
    """Consumes queues in a thread of its own, with connections of its own."""

    def __init__(
        self,
        name: str,
        sources: Sequence[DeclaredSource],
        *,
        broker_url: str,
        policy: Policy,
        heartbeat_seconds: int = 30,
    ) -> None:
        super().__init__(name)
        self._broker_url = broker_url
        self._policy = policy
        self._heartbeat_seconds = heartbeat_seconds
        self._is_consuming = False
        self._connection: Any = None
        self._channels: list[tuple[DeclaredSource, Any]] = []
        self._declared_at = 0.0
        self._publisher = ConfirmingPublisher(broker_url)
        load = Load()
        self._inboxes = [
            (source, Inbox(source, pump=self, publisher=self._publisher, policy=policy, load=load))
            for source in sources
        ]

    @property
    def is_consuming(self) -> bool:
        """Whether the queues are declared and their messages reach us."""
        return self._is_consuming

    @property
    def is_stopping(self) -> bool:
        """Whether the thread was asked to end."""
        return self.stopping.is_set()

    def run(self) -> None:
        """Consume until stopped, through any number of lost connections."""
        backoff = Backoff()
        while not self.stopping.is_set():
            try:
                self._connect()
                while not self.stopping.is_set():
                    if self._step():
                        # Not before: a connection alone is no sign that things work again.
                        backoff.reset()
                connections.close_in_order(self._connection)
            except BROKER_ERRORS as error:
                logger.warning("%s: lost the broker (%s), will be back", self.name, error)
            except Exception:
                logger.exception("%s: starting again after an unexpected error", self.name)
            finally:
                self._disconnect()
            self.stopping.wait(0 if self.stopping.is_set() else backoff.next_seconds())

    def drain(self, timeout_seconds: float) -> bool:
        """Take what the broker sends next; return whether it sent anything in time."""
        try:
            self._connection.drain_events(timeout=timeout_seconds)
        except TimeoutError:
            self._connection.heartbeat_check()
            return False
        return True

    def beat(self) -> None:
        """Tell the broker that we are still there, and take nothing."""
        self._connection.connection.send_heartbeat()

    def _step(self) -> bool:
        if not any(len(inbox) for _, inbox in self._inboxes) and not self.drain(1.0):
            self._declare_again()
        waiting = [inbox for _, inbox in self._inboxes if len(inbox)]
        for inbox in waiting:
            inbox.process()
        return bool(waiting)

    def _connect(self) -> None:
        self._connection = connections.connect(
            self._broker_url, timeout_seconds=5.0, heartbeat_seconds=self._heartbeat_seconds
        )
        self._channels = []
        for source, _ in self._inboxes:
            # A channel each: an acknowledgement of all up to here is for one channel.
            channel = self._connection.channel()
            self._channels.append((source, channel))
            # Bodies stay the bytes that were sent, whatever their headers call them.
            channel.auto_decode = False
            source.declare(channel)
            channel.basic_qos(0, self._policy.prefetch, False)
        # Last, and without waiting for an answer: whoever waits for one on this connection takes
        # every delivery that comes before it, as many as were prefetched and however large.
        for (source, channel), (_, inbox) in zip(self._channels, self._inboxes, strict=True):
            # The raw protocol level: kombu's own consumer lets a broken header or a foreign
            # content type end the whole worker.
            channel.basic_consume(
                source.queue,
                consumer_tag=source.queue,
                callback=inbox.put,
                on_cancel=self._on_cancel,
                nowait=True,
            )
        self._declared_at = time.monotonic()
        self._is_consuming = True

    def _declare_again(self) -> None:
        """Bring back bindings that went with an exchange that was deleted while we run.

        Only when nothing comes, which is so when they are gone: see `_connect`.
        """
        if time.monotonic() - self._declared_at > _DECLARE_EVERY_SECONDS:
            for source, channel in self._channels:
                source.declare(channel)
            self._declared_at = time.monotonic()

    def _disconnect(self) -> None:
        self._is_consuming = False
        for _, inbox in self._inboxes:
            # Not ours any more: the broker delivers them again.
            inbox.clear()
        connections.close(self._connection)
        self._connection = None
        self._publisher.close()

    def _on_cancel(self, consumer_tag: str) -> None:
        raise ConnectionError(f"the broker has cancelled {consumer_tag}: is the queue gone?")


def _size_of(deliveries: Iterable[Any]) -> int:
    return sum(len(delivery.body) for delivery in deliveries)


def _kept_headers(delivery: Any) -> dict[str, str]:
    """Return the headers that tell what a message is (the task, for Celery's); texts, and short."""
    found = headers_of(delivery)
    return {
        name: value
        for name, value in (found.items() if isinstance(found, dict) else ())
        if short_text(name) and short_text(value) and name not in Correlation._fields
    }


def _parts(batch: Iterable[Received[Any]]) -> Iterable[tuple[object, Correlation | None]]:
    """Return what the messages of a batch tell, one by one, each with its request."""
    for each in batch:
        for part in each.event.parts:
            own = Correlation.of(
                getattr(part, "request_id", None), getattr(part, "traceparent", None)
            )
            yield part, own or each.correlation


def _id_of(part: Any) -> str:
    return str(part.order_id if hasattr(part, "order_id") else part.id)


def _fields_of(part: Any, source: Correlation | None) -> dict[str, str]:
    about = "product_id" if hasattr(part, "price") else "order_id"
    return {**(source.log_fields if source else {}), about: _id_of(part)}


def _log_fields(delivery: Any, each: Received[Any] | None = None) -> dict[str, str]:
    """Return what a log line about one message says of it."""
    source = Correlation.of_headers(headers_of(delivery))
    if each is None or len(each.event.parts) != 1:
        return source.log_fields if source else {}
    return _fields_of(each.event.parts[0], source)
