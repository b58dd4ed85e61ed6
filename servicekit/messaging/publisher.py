"""Publishing that knows what became of every message."""

import enum
import logging
import time
from collections.abc import Sequence
from typing import Any

import amqp
from kombu import Connection

from servicekit.messaging import connections
from servicekit.messaging.connections import CONNECTION_ERRORS, BrokerUnavailable
from servicekit.messaging.envelope import OutgoingMessage
from servicekit.messaging.topology import CONSUMED_FROM, declare_exchanges

logger = logging.getLogger(__name__)

_FAILURES: tuple[type[Exception], ...] = (BrokerUnavailable, *CONNECTION_ERRORS)


class Outcome(enum.Enum):
    """What the broker did with a message."""

    CONFIRMED = "confirmed"
    """It is on disk, in every queue it was for."""
    RETURNED = "returned"
    """No queue wanted it, or that of our own consumer was not there. It is nowhere."""
    REFUSED = "refused"
    """A queue would not have it (full, gone). It may be in others."""


class PublishingFailed(BrokerUnavailable):
    """The connection broke or fell silent while messages were on their way.

    `maybe_published` tells whether the broker may have taken them all the same.
    """

    def __init__(self, reason: str, *, maybe_published: bool) -> None:
        super().__init__(reason)
        self.maybe_published = maybe_published


def _consumed_from(message: OutgoingMessage) -> str | None:
    return CONSUMED_FROM.get(message.routing_key) if message.exchange else None


class ConfirmingPublisher:
    """Publishes `mandatory` messages in pipelined batches and waits for every confirm.

    Not thread-safe: one publisher belongs to one thread. It connects when first used and again
    after any failure: a channel that has missed one confirm takes the late one for the next.
    """

    def __init__(
        self, url: str, *, connect_timeout: float = 1.0, confirm_timeout: float = 5.0
    ) -> None:
        self._url = url
        self._connect_timeout = connect_timeout
        self._confirm_timeout = confirm_timeout
        self._connection: Connection | None = None
        self._channel: Any = None
        self._is_blocked = False
        # Of the batch on its way: delivery tag -> position, and what came back.
        self._unconfirmed: dict[int, int] = {}
        self._outcomes: list[Outcome] = []
        self._returned: set[str] = set()
        self._last_tag = 0

    def publish(self, messages: Sequence[OutgoingMessage]) -> list[Outcome]:
        """Publish all, wait for the broker's answers, and return them in the same order.

        :raises PublishingFailed: if not all answers came in time
        """
        try:
            self._ensure_channel()
            absent = self._absent_queues(messages)
        except _FAILURES as error:
            self.close()
            raise PublishingFailed(str(error), maybe_published=False) from error
        try:
            return self._publish(messages, absent)
        except CONNECTION_ERRORS as error:
            self.close()
            raise PublishingFailed(f"no confirm: {error!r}", maybe_published=True) from error

    def close(self) -> None:
        """Drop the connection; the next call of `publish` makes a new one."""
        connections.close(self._connection)
        self._connection = self._channel = None

    def _ensure_channel(self) -> None:
        if self._channel is not None:
            return
        self._is_blocked = False
        self._connection = connections.connect(
            self._url,
            timeout_seconds=self._connect_timeout,
            on_blocked=self._on_blocked,
            on_unblocked=self._on_unblocked,
        )
        self._open_channel()

    def _open_channel(self) -> None:
        assert self._connection is not None  # noqa: S101 - it was just made
        channel: Any = self._connection.channel()
        declare_exchanges(channel)
        channel.events["basic_return"].add(self._on_return)
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.confirm_select()
        self._channel = channel
        self._last_tag = 0

    def _absent_queues(self, messages: Sequence[OutgoingMessage]) -> set[str | None]:
        """Return the queues of our own consumers that would miss some of the messages.

        A stranger's queue is enough for the broker to confirm an event: what only that one has got
        is lost to our consumer. One round trip for each queue of a batch.
        """
        absent: set[str | None] = set()
        for queue in {_consumed_from(each) for each in messages} - {None}:
            try:
                self._channel.queue_declare(queue, passive=True)
            except amqp.exceptions.NotFound:
                absent.add(queue)
                # The broker has closed it.
                self._open_channel()
        return absent

    def _publish(
        self, messages: Sequence[OutgoingMessage], absent: set[str | None]
    ) -> list[Outcome]:
        self._outcomes = [Outcome.CONFIRMED] * len(messages)
        self._returned.clear()
        self._unconfirmed.clear()
        self._write(messages, absent)
        self._await_confirms()
        # A return carries no delivery tag; it comes before the ack of its message.
        for position, message in enumerate(messages):
            if (
                message.message_id in self._returned
                and self._outcomes[position] is Outcome.CONFIRMED
            ):
                self._outcomes[position] = Outcome.RETURNED
        return self._outcomes

    def _write(self, messages: Sequence[OutgoingMessage], absent: set[str | None]) -> None:
        """Write the frames of all messages but those for absent queues, in one system call."""
        connection: Any = self._channel.connection
        frames = []
        for position, message in enumerate(messages):
            if absent and _consumed_from(message) in absent:
                self._outcomes[position] = Outcome.RETURNED
                continue
            self._last_tag += 1
            self._unconfirmed[self._last_tag] = position
            frames.append(message.frames(self._channel.channel_id, connection.frame_max))
        with connection.transport.having_timeout(self._confirm_timeout):
            connection.transport.write(b"".join(frames))

    def _await_confirms(self) -> None:
        assert self._connection is not None  # noqa: S101 - `_ensure_channel` came before
        deadline = time.monotonic() + self._confirm_timeout
        while self._unconfirmed:
            if self._is_blocked:
                # Memory or disk alarm: the broker has stopped reading, for nobody knows how long.
                raise ConnectionError("the broker has blocked its publishers")
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError(f"{len(self._unconfirmed)} messages unconfirmed in time")
            self._connection.drain_events(timeout=remaining)

    def _on_ack(self, delivery_tag: int, multiple: bool) -> None:  # noqa: FBT001 - py-amqp calls it so
        self._answered(delivery_tag, multiple=multiple, outcome=Outcome.CONFIRMED)

    def _on_nack(self, delivery_tag: int, multiple: bool) -> None:  # noqa: FBT001 - py-amqp calls it so
        self._answered(delivery_tag, multiple=multiple, outcome=Outcome.REFUSED)

    def _answered(self, delivery_tag: int, *, multiple: bool, outcome: Outcome) -> None:
        tags = (
            [tag for tag in self._unconfirmed if tag <= delivery_tag]
            if multiple
            else [delivery_tag]
        )
        for tag in tags:
            position = self._unconfirmed.pop(tag, None)
            if position is not None:
                self._outcomes[position] = outcome

    def _on_return(
        self, _error: Exception, _exchange: str, _routing_key: str, message: Any
    ) -> None:
        self._returned.add(message.properties.get("message_id", ""))

    def _on_blocked(self, reason: str) -> None:
        logger.warning("the broker blocks its publishers: %s", reason)
        self._is_blocked = True

    def _on_unblocked(self) -> None:
        self._is_blocked = False
