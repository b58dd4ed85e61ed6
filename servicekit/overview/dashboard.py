"""What the dashboards of both services show alike: outbox, queues, dead letters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.urls import reverse
from django.utils import timezone

from servicekit.backoffice.bounded_count import BoundedCount, count_rows
from servicekit.backoffice.cards import Card, Tile
from servicekit.backoffice.display import ago, badge, duration, link
from servicekit.backoffice.queues import QueueDepth, queue_depths
from servicekit.dead_letters.selectors import waiting_by_queue, waiting_count, waiting_letters
from servicekit.messaging.connections import BrokerUnavailable
from servicekit.outbox.models import OutgoingEvent

SAMPLE_LIMIT = 50_000
"""No figure looks at more rows than this, however many there are."""
SAMPLE_MINUTES = 60
"""... and at none that is older."""

# An event usually stays in the outbox for milliseconds.
OUTBOX_IS_LATE_AFTER = timedelta(seconds=10)
QUEUE_IS_LONG_FROM = 1000
DEAD_LETTERS = "dead_letters/deadletter/?status__exact=WAITING"


@dataclass(frozen=True)
class Sample:
    """Which rows the figures were taken from."""

    since: datetime
    until: datetime
    count: BoundedCount

    @property
    def text(self) -> str:
        """What the charts say about themselves."""
        if self.count.is_at_limit:
            return f"The newest {SAMPLE_LIMIT:,}, back to {self.since:%H:%M:%S} UTC"
        return f"The last {SAMPLE_MINUTES} minutes, UTC"


def sample(rows: Sequence[Mapping[str, Any]]) -> Sample:
    """Return what rows with `count` and `oldest` cover: the last hour, or less of too much."""
    now = timezone.now()
    count = BoundedCount(sum(row["count"] for row in rows), SAMPLE_LIMIT)
    hour = now - timedelta(minutes=SAMPLE_MINUTES - 1)
    since = min(row["oldest"] for row in rows) if count.is_at_limit else hour
    return Sample(since, now, count)


def outbox_tile() -> Tile:
    """Return how many events wait to be published, and since when."""
    waiting = OutgoingEvent.objects.order_by("id")
    depth = count_rows(waiting)
    oldest = waiting.values_list("recorded_at", flat=True).first()
    age = timezone.now() - oldest if oldest else timedelta()
    is_late = age > OUTBOX_IS_LATE_AFTER
    return Tile(
        title="Outbox",
        value=str(depth),
        note=f"oldest event {duration(age.total_seconds())} old"
        if depth
        else "all events are published",
        tone="danger" if is_late else "success",
        link=reverse("admin:outbox_outgoingevent_changelist"),
    )


def dead_letters_tile() -> Tile:
    """Return how many messages wait for a person."""
    waiting = waiting_count()
    return Tile(
        title="Dead letters",
        value=str(waiting),
        note="waiting for a decision" if waiting else "none to decide about",
        tone="danger" if waiting else "success",
        link=_dead_letter_list(),
    )


def depths_of_queues() -> list[QueueDepth]:
    """Return how long each queue of the worker is, nothing if the broker does not answer."""
    try:
        return queue_depths(settings.WORKER_QUEUES)
    except BrokerUnavailable:
        return []


def queues_card(depths: Sequence[QueueDepth]) -> Card:
    """Return how long each queue of the worker is, who works on it, and its dead letters."""
    about: dict[str, Any] = {"title": "Queues", "width": "lg:col-span-2"}
    if not depths:
        return Card(
            **about,
            note="Orders are accepted all the same; their outcome comes later.",
            empty="The broker does not answer, so the lengths of the queues are unknown.",
        )
    letters = waiting_by_queue(SAMPLE_LIMIT)
    return Card(
        **about,
        note="In hand: taken by a worker and not acknowledged. Oldest: the first of those.",
        table={
            "headers": ["Queue", "Waiting", "In hand", "Oldest", "Consumers", "Dead letters"],
            "rows": [_queue_row(depth, letters) for depth in depths],
        },
    )


def _queue_row(depth: QueueDepth, letters: dict[str, int]) -> list[str]:
    if depth.waiting is None or depth.consumers is None:
        return [depth.name, badge("does not exist", "warning"), "—", "—", "—", "—"]
    in_hand = "—" if depth.in_hand is None else f"{depth.in_hand:,}"
    waiting = f"{depth.waiting:,}"
    total = BoundedCount(letters.get(depth.name, 0) + (depth.dead or 0), SAMPLE_LIMIT)
    return [
        depth.name,
        badge(waiting, "warning") if depth.waiting >= QUEUE_IS_LONG_FROM else waiting,
        # One that hangs cannot tell what else it was given.
        f"{in_hand}+" if depth.trouble and depth.in_hand else in_hand,
        "—" if depth.oldest_seconds is None else duration(depth.oldest_seconds),
        badge(depth.trouble, "danger") if depth.trouble else f"{depth.consumers:,}",
        link(f"{_dead_letter_list()}&queue={depth.name}", badge(total, "danger")) if total else "0",
    ]


def latest_dead_letters_card() -> Card:
    """Return the latest dead letters."""
    newest = waiting_letters().only("routing_key", "queue", "reason", "last_seen", "times_seen")[:3]
    return Card(
        title="Latest dead letters",
        table={
            "headers": ["Message", "Reason"],
            "rows": [
                [
                    link(
                        reverse("admin:dead_letters_deadletter_change", args=[message.pk]),
                        f"{message.routing_key or message.queue}, {ago(message.last_seen)}",
                    ),
                    message.reason[:120],
                ]
                for message in newest
            ],
        },
        empty="No message has failed.",
        action=link(_dead_letter_list(), "Show all"),
    )


def _dead_letter_list() -> str:
    return reverse("admin:index") + DEAD_LETTERS


def context(tiles: Sequence[Tile], cards: Sequence[Card]) -> dict[str, Any]:
    """Return what the start page's template takes."""
    return {
        "tiles": tiles,
        "cards": cards,
        "drawn_at": timezone.now(),
        "is_open": not settings.REQUIRE_API_KEY,
    }
