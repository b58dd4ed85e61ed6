"""The relay: from the outbox to the broker, at least once."""

import logging
from collections import Counter, defaultdict
from functools import partial

from django.db.models import F
from django.db.models.functions import Now

from servicekit import metrics
from servicekit.correlation import Correlation
from servicekit.database.loop import Loop
from servicekit.failpoints import failpoint
from servicekit.messaging import envelope
from servicekit.messaging.envelope import OutgoingMessage
from servicekit.messaging.publisher import ConfirmingPublisher, Outcome
from servicekit.outbox.models import BELL, OutgoingEvent

logger = logging.getLogger(__name__)


def relay(broker_url: str) -> Loop:
    """Return the thread that publishes recorded events. Several may run side by side."""
    publisher = ConfirmingPublisher(broker_url)
    return Loop("outbox relay", partial(publish_recorded_events, publisher), bell=BELL)


def publish_recorded_events(publisher: ConfirmingPublisher, *, limit: int = 500) -> int:
    """Publish recorded events, forget the confirmed ones, return how many were taken.

    They are claimed for a while, and no transaction is open while the broker is waited for. A crash
    anywhere in here leaves them recorded: they are published again, under the same ids. What no
    queue wanted, or a queue refused, is kept, and offered again after pauses that grow.

    :raises PublishingFailed: if the broker is away; nothing is forgotten
    """
    events = OutgoingEvent.objects.claim(limit)
    if not events:
        return 0
    try:
        outcomes = publisher.publish([_message(event) for event in events])
    except Exception:
        # Not for the whole lease: the broker may be back in a moment.
        OutgoingEvent.objects.filter(id__in=[event.id for event in events]).update(
            available_at=Now()
        )
        raise
    failpoint("outbox.after_confirm")
    for outcome, count in Counter(outcomes).items():
        metrics.OUTBOX_PUBLISHED.labels(outcome.value).inc(count)
    taken = list(zip(events, outcomes, strict=True))
    OutgoingEvent.objects.filter(
        id__in=[event.id for event, outcome in taken if outcome is Outcome.CONFIRMED]
    ).delete()
    kept = [(event, outcome) for event, outcome in taken if outcome is not Outcome.CONFIRMED]
    alike: dict[tuple[int, Outcome], list[int]] = defaultdict(list)
    for event, outcome in kept:
        alike[event.attempts, outcome].append(event.id)
    # A statement for each event would take longer than the first pause: with thousands of them,
    # some would always be due.
    for (attempts, outcome), ids in alike.items():
        OutgoingEvent.objects.filter(id__in=ids).update(
            available_at=Now() + OutgoingEvent.pause_after(attempts),
            attempts=F("attempts") + 1,
            last_outcome=outcome.value,
        )
    if kept:
        logger.warning("%d events wait: %s %s", len(kept), kept[0][0].routing_key, kept[0][1].value)
    return len(events)


def _message(event: OutgoingEvent) -> OutgoingMessage:
    return OutgoingMessage(
        exchange=event.exchange,
        routing_key=event.routing_key,
        body=event.body.encode(),
        message_id=str(event.event_id),
        type=event.routing_key,
        correlation_id=event.correlation_id,
        timestamp=int(event.recorded_at.timestamp()),
        headers=envelope.headers(Correlation.of_headers(event.headers)),
    )
