"""What a worker does about parked messages, in two threads with connections of their own."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.db import DatabaseError, InterfaceError, close_old_connections, connection

from servicekit.messaging import connections
from servicekit.messaging.backoff import Backoff
from servicekit.messaging.connections import CONNECTION_ERRORS, BrokerUnavailable
from servicekit.messaging.publisher import ConfirmingPublisher, PublishingFailed
from servicekit.messaging.topology import Topology, dead_letter_queue_name
from servicekit.parking import recognising, services
from servicekit.parking.recognising import DeadLetter
from servicekit.threads import StoppableThread

logger = logging.getLogger(__name__)

_BROKER_TROUBLE: tuple[type[Exception], ...] = (BrokerUnavailable, *CONNECTION_ERRORS)
_DATABASE_TROUBLE: tuple[type[Exception], ...] = (DatabaseError, InterfaceError)
_REPLAY_TROUBLE: tuple[type[Exception], ...] = (PublishingFailed, *_DATABASE_TROUBLE)
# Poison may be large, and all of it is in memory.
_BATCH_LIMIT = 20
# Small but not 0: with 0, py-amqp loses its place in a frame that has half arrived.
_ARRIVED_ALREADY_SECONDS = 0.001


class Collector(StoppableThread):
    """Moves what is in the dead-letter queues of a worker's queues into the database.

    A message is acknowledged when it is stored. While the database is away, what is in hand is
    held, and the rest stays in its queue.
    """

    def __init__(
        self,
        queues: Sequence[str],
        *,
        broker_url: str,
        topology: Topology,
        explain: Mapping[str, Callable[[bytes], str]] | None = None,
    ) -> None:
        super().__init__("parked messages: collector")
        self._explain = explain or {}
        self._queues = list(queues)
        self._broker_url = broker_url
        self._topology = topology
        self._connection: Any = None
        self._arrived: deque[tuple[str, Any]] = deque()

    def run(self) -> None:
        """Collect until stopped, through any number of lost connections."""
        backoff = Backoff()
        while not self.stopping.is_set():
            try:
                # Before anything is taken: a message that goes back too often is dropped.
                connection.ensure_connection()
                self._connect()
                self._collect(backoff)
            except (*_BROKER_TROUBLE, *_DATABASE_TROUBLE) as error:
                logger.warning("%s: pausing: %s", self.name, error)
            except Exception:
                logger.exception("%s: starting again after an unexpected error", self.name)
            finally:
                self._arrived.clear()
                connections.close(self._connection)
                self._connection = None
                connection.close()
            if not self.stopping.is_set():
                self.stopping.wait(backoff.next_seconds())

    def _connect(self) -> None:
        self._connection = connections.connect(
            self._broker_url, timeout_seconds=5.0, heartbeat_seconds=30
        )
        channel = self._connection.channel()
        # Bodies stay the bytes that were sent, whatever their headers call them.
        channel.auto_decode = False
        channel.basic_qos(0, _BATCH_LIMIT, False)
        for queue in self._queues:
            self._topology.dead_letter_queue(queue)(channel).declare()
            channel.basic_consume(
                dead_letter_queue_name(queue),
                callback=self._note_for(queue),
                on_cancel=self._on_cancel,
            )

    def _note_for(self, queue: str) -> Callable[[Any], None]:
        return lambda delivery: self._arrived.append((queue, delivery))

    def _on_cancel(self, consumer_tag: str) -> None:
        raise ConnectionError(f"the broker has cancelled {consumer_tag}: is the queue gone?")

    def _collect(self, backoff: Backoff) -> None:
        while not self.stopping.is_set():
            if not self._arrived:
                self._drain(1.0)
            while len(self._arrived) < _BATCH_LIMIT and self._drain(_ARRIVED_ALREADY_SECONDS):
                pass
            if self._arrived:
                count = min(len(self._arrived), _BATCH_LIMIT)
                self._store([self._arrived.popleft() for _ in range(count)])
                backoff.reset()

    def _drain(self, timeout_seconds: float) -> bool:
        """Take what the broker sends; return whether it sent anything."""
        try:
            self._connection.drain_events(timeout=timeout_seconds)
        except TimeoutError:
            self._connection.heartbeat_check()
            return False
        return True

    def _store(self, deliveries: Sequence[tuple[str, Any]]) -> None:
        letters = [self._letter(queue, delivery) for queue, delivery in deliveries]
        pauses = Backoff()
        while True:
            try:
                close_old_connections()
                services.collect(letters)
            except _DATABASE_TROUBLE as error:
                seconds = pauses.next_seconds()
                logger.warning("%s: holding %d messages: %s", self.name, len(letters), error)
                connection.close()
            else:
                break
            self._wait(seconds)
        for _queue, delivery in deliveries:
            delivery.channel.basic_ack(delivery.delivery_tag)

    def _letter(self, queue: str, delivery: Any) -> DeadLetter:
        properties = dict(delivery.properties)
        headers = properties.pop("application_headers", None) or {}
        # py-amqp gives an empty body as an empty str, and every other as bytes.
        body = bytes(delivery.body) if delivery.body else b""
        explain = self._explain.get(queue)
        return recognising.read(
            queue, body, headers, properties, explanation=explain(body) if explain else ""
        )

    def _wait(self, seconds: float) -> None:
        """Pause with messages in hand, answering heartbeats."""
        until = time.monotonic() + seconds
        while (remaining := until - time.monotonic()) > 0:
            if self.stopping.is_set():
                raise ConnectionError("stopped with messages in hand; they are not acknowledged")
            self._drain(min(remaining, 0.5))


class Replayer(StoppableThread):
    """Publishes the messages whose replay was asked for, no more than so many per second.

    Several may run side by side, each at this rate.
    """

    def __init__(self, *, broker_url: str, per_second: int = 50) -> None:
        super().__init__("parked messages: replayer")
        self._publisher = ConfirmingPublisher(broker_url)
        self._per_second = per_second

    def run(self) -> None:
        """Look every second until stopped."""
        backoff = Backoff()
        while not self.stopping.is_set():
            pause = 1.0
            try:
                close_old_connections()
                self._publish()
                backoff.reset()
            except _REPLAY_TROUBLE as error:
                pause = max(pause, backoff.next_seconds())
                logger.warning("%s: pausing for %.1f s: %s", self.name, pause, error)
            except Exception:
                logger.exception("%s: starting again after an unexpected error", self.name)
                connection.close()
            self.stopping.wait(pause)
        self._publisher.close()
        connection.close()

    def _publish(self) -> None:
        """Send what was asked for, as much as a second may have."""
        left = self._per_second
        while left > 0 and not self.stopping.is_set():
            # A few at a time, because all of them are in memory.
            limit = min(left, _BATCH_LIMIT)
            taken = services.publish_requested(self._publisher, limit=limit)
            left -= taken
            if taken < limit:
                return
