"""Consuming events in batches: whatever has arrived is handled together, then acknowledged.

Every message ends in exactly one of three ways: acknowledged after its effect is committed; parked
in the dead-letter queue, body untouched, with the reason in a header; or held, and tried
again with growing pauses, while what it needs (database, broker) is away.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import uuid4

from servicekit import metrics, origin, telemetry
from servicekit.contracts.events import Event, MalformedMessage
from servicekit.messaging import connections
from servicekit.messaging.backoff import Backoff
from servicekit.messaging.connections import CONNECTION_ERRORS, BrokerUnavailable
from servicekit.messaging.publisher import ConfirmingPublisher, Outcome, OutgoingMessage
from servicekit.messaging.topology import Topology, dead_letter_queue_name
from servicekit.origin import Origin
from servicekit.threads import StoppableThread

logger = logging.getLogger(__name__)

REASON_HEADER = "x-parked-reason"
_REASON_MAX_LENGTH = 500
# In milliseconds: the last that a date can have.
_LATEST_MS = 253_402_300_799_999
_BROKER_TROUBLE: tuple[type[Exception], ...] = (BrokerUnavailable, *CONNECTION_ERRORS)
# Small but not 0: with 0, py-amqp loses its place in a frame that has half arrived.
_ARRIVED_ALREADY_SECONDS = 0.001


@dataclass(frozen=True)
class Unprocessable:
    """An event that is well-formed and can never be applied, and why."""

    event: Event
    reason: str


@dataclass(frozen=True)
class Subscription:
    """Which events come from which queue into which function.

    The function gets a batch in order of arrival, applies it as a whole (it may get the same
    events again) and returns those that are to be parked.
    """

    queue: str
    events: tuple[type[Event], ...]
    handle: Callable[[Sequence[Any]], Iterable[Unprocessable]]

    @property
    def exchange(self) -> str:
        """The one exchange that the events come from."""
        return self.events[0].exchange

    def contract_of(self, routing_key: str, type_property: str | None) -> type[Event]:
        """Return what to read a message as.

        :raises MalformedMessage: if it says to be something that we did not subscribe to
        """
        # A message that was put back into the queue by hand has the queue's name as routing key,
        # and one from an older producer has no type.
        for event in self.events:
            if event.routing_key in (routing_key, type_property):
                return event
        if len(self.events) == 1:
            return self.events[0]
        raise MalformedMessage(f"neither routing key {routing_key!r} nor type says what this is")


class _Received(NamedTuple):
    """A message that could be read: its event, where it comes from, and since when it is here."""

    delivery: Any
    event: Event
    source: Origin | None
    handed_over_ms: int | None


class BatchConsumer(StoppableThread):
    """Consumes one subscription in a thread of its own, with connections of its own."""

    def __init__(
        self,
        subscription: Subscription,
        *,
        broker_url: str,
        topology: Topology,
        transient_errors: tuple[type[Exception], ...],
        before_batch: Callable[[], None],
        batch_limit: int = 500,
        heartbeat_seconds: int = 30,
    ) -> None:
        super().__init__(subscription.queue)
        self._subscription = subscription
        self._broker_url = broker_url
        self._topology = topology
        self._transient_errors = transient_errors
        self._before_batch = before_batch
        self._batch_limit = batch_limit
        self._heartbeat_seconds = heartbeat_seconds
        self._is_consuming = False
        self._arrived: deque[Any] = deque()
        self._connection: Any = None
        self._parking = ConfirmingPublisher(broker_url)
        self._recorder = telemetry.recorder()
        self._sizes = metrics.CONSUMER_BATCH.labels(subscription.queue)
        self._ages = metrics.CONSUMER_MESSAGE_AGE.labels(subscription.queue)
        self._parked = metrics.CONSUMER_PARKED.labels(subscription.queue)

    @property
    def is_consuming(self) -> bool:
        """Whether the queue is declared and its messages reach us."""
        return self._is_consuming

    def run(self) -> None:
        """Consume until stopped, through any number of lost connections."""
        backoff = Backoff()
        while not self.stopping.is_set():
            try:
                self._connect()
                self._consume(backoff)
                connections.close_in_order(self._connection)
            except _BROKER_TROUBLE as error:
                logger.warning("%s: lost the broker (%s), will be back", self.name, error)
            except Exception:
                logger.exception("%s: starting again after an unexpected error", self.name)
            finally:
                self._disconnect()
            if not self.stopping.is_set():
                self.stopping.wait(backoff.next_seconds())

    def _connect(self) -> None:
        self._connection = connections.connect(
            self._broker_url, timeout_seconds=5.0, heartbeat_seconds=self._heartbeat_seconds
        )
        channel = self._connection.channel()
        # Bodies stay the bytes that were sent, whatever their headers call them.
        channel.auto_decode = False
        subscription = self._subscription
        routing_keys = [event.routing_key for event in subscription.events]
        self._topology.declare(channel, subscription.queue, subscription.exchange, routing_keys)
        # Twice the batch, so that the next one arrives while this one is being stored.
        channel.basic_qos(0, self._batch_limit * 2, False)
        # The raw protocol level: kombu's own consumer lets a broken header or a foreign content
        # type end the whole worker.
        channel.basic_consume(
            subscription.queue, callback=self._arrived.append, on_cancel=self._on_cancel
        )
        self._is_consuming = True

    def _disconnect(self) -> None:
        self._is_consuming = False
        # Not ours any more: the broker delivers them again.
        self._arrived.clear()
        connections.close(self._connection)
        self._connection = None
        self._parking.close()

    def _on_cancel(self, consumer_tag: str) -> None:
        raise ConnectionError(f"the broker has cancelled {consumer_tag}: is the queue gone?")

    def _consume(self, backoff: Backoff) -> None:
        while not self.stopping.is_set():
            if not self._arrived:
                self._drain(1.0)
            while len(self._arrived) < self._batch_limit and self._drain(_ARRIVED_ALREADY_SECONDS):
                pass
            if self._arrived:
                count = min(len(self._arrived), self._batch_limit)
                self._process([self._arrived.popleft() for _ in range(count)])
                # Not before: a connection alone is no sign that things work again.
                backoff.reset()

    def _drain(self, timeout_seconds: float) -> bool:
        """Take what the broker sends; return whether it sent anything."""
        try:
            self._connection.drain_events(timeout=timeout_seconds)
        except TimeoutError:
            self._connection.heartbeat_check()
            return False
        return True

    def _process(self, deliveries: list[Any]) -> None:
        readable: list[_Received] = []
        unreadable: list[tuple[Any, str]] = []
        for delivery in deliveries:
            try:
                readable.append(self._read(delivery))
            except MalformedMessage as error:
                unreadable.append((delivery, str(error)))
            except Exception as error:
                # A message that breaks the reading in a way nobody has thought of.
                logger.exception(
                    "%s: cannot read a message", self.name, extra=_log_fields(delivery)
                )
                unreadable.append((delivery, f"{type(error).__name__}: {error}"))
        self._apply(readable)
        # After the others: as long as those are held, all of them may be delivered once more.
        for delivery, reason in unreadable:
            self._park(delivery, reason)
        # One acknowledgement for all up to here, and only after every one of them is committed
        # or parked.
        last = deliveries[-1]
        last.channel.basic_ack(last.delivery_tag, multiple=True)

    def _read(self, delivery: Any) -> _Received:
        contract = self._subscription.contract_of(
            delivery.delivery_info["routing_key"], delivery.properties.get("type")
        )
        event = contract.from_json(_body(delivery))
        headers = _headers(delivery)
        at_ms = _handed_over_ms(headers)
        if at_ms is not None:
            event = event.published(at_ms)
        return _Received(delivery, event, Origin.of_headers(headers), at_ms)

    def _apply(self, readable: list[_Received]) -> None:
        if not readable:
            return
        backoff = Backoff()
        sources = {each.event.correlation_id: each.source for each in readable if each.source}
        while True:
            started = time.monotonic()
            try:
                self._before_batch()
                # What is recorded about an order goes on under the ids that its message came with.
                with origin.of_messages(sources):
                    unprocessable = list(
                        self._subscription.handle([each.event for each in readable])
                    )
                break
            except self._transient_errors as error:
                seconds = backoff.next_seconds()
                logger.warning(
                    "%s: holding %d messages for %.1f s: %s",
                    self.name,
                    len(readable),
                    seconds,
                    error,
                )
                self._wait(seconds)
            except Exception as error:
                if len(readable) == 1:
                    [only] = readable
                    logger.exception(
                        "%s: parking a message that cannot be applied",
                        self.name,
                        extra=_log_fields(only.delivery, only.event),
                    )
                    self._park(only.delivery, f"{type(error).__name__}: {error}", only.event)
                    return
                # One of them is poison. Halves, not singles: the innocent stay together.
                middle = len(readable) // 2
                self._apply(readable[:middle])
                self._apply(readable[middle:])
                return
        self._note(readable, seconds=time.monotonic() - started)
        reasons = {id(refused.event): refused.reason for refused in unprocessable}
        for each in readable:
            if id(each.event) in reasons:
                self._park(each.delivery, reasons[id(each.event)], each.event)

    def _note(self, handled: list[_Received], *, seconds: float) -> None:
        """Count and log a batch whose effect is committed."""
        self._sizes.observe(len(handled))
        now_ms = time.time() * 1000
        for each in handled:
            if each.handed_over_ms is not None:
                # Not below 0, which another machine's clock could make it.
                self._ages.observe(max(0.0, now_ms - each.handed_over_ms) / 1000)
            if self._recorder is not None:
                self._recorder.record_message(
                    self.name,
                    each.source,
                    seconds=seconds,
                    attributes={
                        "messaging.batch.message_count": len(handled),
                        "messaging.message.conversation_id": each.event.correlation_id,
                    },
                )
        logger.info(
            "handled a batch",
            extra={
                "queue": self.name,
                "messages": len(handled),
                "milliseconds": round(seconds * 1000, 1),
            },
        )
        if logger.isEnabledFor(logging.DEBUG):
            for each in handled:
                logger.debug(
                    "%s: handled %s",
                    self.name,
                    each.event.routing_key,
                    extra=_log_fields(each.delivery, each.event),
                )

    def _wait(self, seconds: float) -> None:
        """Pause with a batch in hand, answering heartbeats."""
        until = time.monotonic() + seconds
        while (remaining := until - time.monotonic()) > 0:
            if self.stopping.is_set():
                raise ConnectionError("stopped with a batch in hand; it is not acknowledged")
            self._drain(min(remaining, 0.5))

    def _park(self, delivery: Any, reason: str, event: Event | None = None) -> None:
        queue = self._subscription.queue
        logger.error(
            "%s: parked a message: %r",
            queue,
            reason[:_REASON_MAX_LENGTH],
            extra=_log_fields(delivery, event),
        )
        source = Origin.of_headers(_headers(delivery))
        [outcome] = self._parking.publish(
            [
                OutgoingMessage(
                    exchange="",
                    routing_key=dead_letter_queue_name(queue),
                    body=_body(delivery),
                    message_id=_text(delivery.properties.get("message_id")) or str(uuid4()),
                    type=_text(delivery.properties.get("type")),
                    correlation_id=_text(delivery.properties.get("correlation_id")),
                    content_type=_text(delivery.properties.get("content_type"))
                    or "application/octet-stream",
                    content_encoding=_text(delivery.properties.get("content_encoding")),
                    headers={
                        # So that it goes on under its ids when it is put back.
                        **(source.headers if source else {}),
                        REASON_HEADER: reason[:_REASON_MAX_LENGTH],
                        "x-parked-from": queue,
                        "x-parked-routing-key": delivery.delivery_info["routing_key"],
                    },
                )
            ]
        )
        if outcome is not Outcome.CONFIRMED:
            # Not acknowledged then: it is delivered again, and parked when its queue is back.
            raise BrokerUnavailable(f"{dead_letter_queue_name(queue)} did not take it: {outcome}")
        self._parked.inc()


def _body(delivery: Any) -> bytes:
    # py-amqp gives an empty body as an empty str, and every other as bytes.
    return bytes(delivery.body) if delivery.body else b""


def _headers(delivery: Any) -> Any:
    return delivery.properties.get("application_headers")


def _handed_over_ms(headers: Any) -> int | None:
    """Return when the broker was given a message, if its sender says so and it can be true."""
    at_ms = headers.get("timestamp_in_ms") if isinstance(headers, dict) else None
    # Not `isinstance`, for which True is a number.
    return at_ms if type(at_ms) is int and 0 <= at_ms <= _LATEST_MS else None


def _log_fields(delivery: Any, event: Event | None = None) -> dict[str, str]:
    """Return what a log line about one message says of it."""
    source = Origin.of_headers(_headers(delivery))
    fields = source.log_fields if source else {}
    if event is not None:
        about = "order_id" if hasattr(event, "order_id") else "product_id"
        fields[about] = event.correlation_id
    return fields


def _text(value: object) -> str | None:
    """Return a property of a stranger's message, if it can go into a property of ours."""
    # py-amqp reads half a character, and writes it, too; an exception here would stop the queue.
    fits = isinstance(value, str) and len(value.encode(errors="surrogatepass")) <= 255  # noqa: PLR2004 - AMQP short string
    return str(value) if fits else None
