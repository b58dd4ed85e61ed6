"""The relay: from the outbox to the broker, at least once."""

import logging
import time
from collections import Counter
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, InterfaceError, close_old_connections, connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from servicekit import metrics
from servicekit.failpoints import failpoint
from servicekit.messaging.backoff import Backoff
from servicekit.messaging.publisher import (
    ConfirmingPublisher,
    Outcome,
    OutgoingMessage,
    PublishingFailed,
)
from servicekit.outbox.models import OutgoingEvent
from servicekit.threads import StoppableThread

logger = logging.getLogger(__name__)

CHANNEL = "outbox"
"""The NOTIFY channel that a trigger on the table rings at every commit that records events."""

_RETRY_UNWANTED = timedelta(seconds=5)
# The bell may be missed (a new connection, a pooler in between), so look now and then.
_LOOK_EVERY_SECONDS = 1.0


def _message(event: OutgoingEvent) -> OutgoingMessage:
    return OutgoingMessage(
        exchange=event.exchange,
        routing_key=event.routing_key,
        body=event.body.encode(),
        message_id=str(event.event_id),
        type=event.routing_key,
        correlation_id=event.correlation_id,
        timestamp=int(event.recorded_at.timestamp()),
        # AMQP's own timestamps are whole seconds. This one says when the broker was given it.
        headers={**event.headers, "timestamp_in_ms": time.time_ns() // 1_000_000},
    )


def publish_recorded_events(publisher: ConfirmingPublisher, *, limit: int = 500) -> int:
    """Publish the oldest recorded events, forget the confirmed ones, return how many were taken.

    A crash anywhere in here leaves the events recorded: they are published again, under the
    same ids. What no queue wanted, or a queue refused, is kept and offered again later.

    :raises PublishingFailed: if the broker is away; nothing is forgotten
    """
    with transaction.atomic(durable=True):
        events = OutgoingEvent.objects.claim(limit)
        if not events:
            return 0
        outcomes = publisher.publish([_message(event) for event in events])
        failpoint("outbox.after_confirm")
        _count(outcomes)
        confirmed, kept = [], []
        for event, outcome in zip(events, outcomes, strict=True):
            if outcome is Outcome.CONFIRMED:
                confirmed.append(event.id)
            else:
                kept.append((event, outcome))
        OutgoingEvent.objects.filter(id__in=confirmed).delete()
        for event, outcome in kept:
            OutgoingEvent.objects.filter(id=event.id).update(
                available_at=Now() + _RETRY_UNWANTED,
                attempts=F("attempts") + 1,
                last_outcome=outcome.value,
            )
    if kept:
        logger.warning("%d events wait: %s %s", len(kept), kept[0][0].routing_key, kept[0][1].value)
    return len(events)


def _count(outcomes: list[Outcome]) -> None:
    for outcome, count in Counter(outcomes).items():
        metrics.OUTBOX_PUBLISHED.labels(outcome.value).inc(count)


class Relay(StoppableThread):
    """Publishes recorded events as they are committed. Several relays may run side by side."""

    def __init__(self, *, broker_url: str, batch_limit: int = 500) -> None:
        super().__init__("outbox relay")
        self._publisher = ConfirmingPublisher(broker_url)
        self._batch_limit = batch_limit
        self._listening_on: Any = None

    def run(self) -> None:
        """Publish until stopped, through lost connections on either side."""
        backoff = Backoff()
        while not self.stopping.is_set():
            try:
                close_old_connections()
                self._listen()
                while publish_recorded_events(self._publisher, limit=self._batch_limit):
                    backoff.reset()
                self._wait_for_bell()
            except (PublishingFailed, DatabaseError, InterfaceError) as error:
                seconds = backoff.next_seconds()
                logger.warning("relay pauses for %.1f s: %s", seconds, error)
                self.stopping.wait(seconds)
            except Exception:
                logger.exception("relay starts again after an unexpected error")
                connection.close()
                self.stopping.wait(backoff.next_seconds())
        self._publisher.close()
        connection.close()

    def _listen(self) -> None:
        connection.ensure_connection()
        if self._listening_on is not connection.connection:
            with connection.cursor() as cursor:
                cursor.execute(f"LISTEN {CHANNEL}")
            self._listening_on = connection.connection

    def _wait_for_bell(self) -> None:
        try:
            for _ in self._listening_on.notifies(timeout=_LOOK_EVERY_SECONDS, stop_after=1):
                pass
        except Exception as error:
            # psycopg's own, not Django's: this call goes past Django's wrappers.
            connection.close()
            raise InterfaceError(f"lost the database while listening: {error}") from error
