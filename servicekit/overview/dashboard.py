"""What the dashboards of both services show alike: outbox, queues, parked messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.urls import reverse
from django.utils import timezone

from servicekit.administration.capped import Capped, count_rows, rows_of
from servicekit.administration.cards import Card, Cell, Table, Tile
from servicekit.administration.display import Tone, ago, duration
from servicekit.administration.queues import QueueDepth, queue_depths
from servicekit.messaging.connections import BrokerUnavailable
from servicekit.outbox.models import OutgoingEvent
from servicekit.parking.models import ParkedMessage
from servicekit.parking.selectors import parked_count

SAMPLE_LIMIT = 50_000
"""No figure looks at more rows than this, however many there are."""
SAMPLE_MINUTES = 60
"""... and at none that is older."""

# An event usually stays in the outbox for milliseconds.
_OUTBOX_IS_LATE_AFTER = timedelta(seconds=10)
_QUEUE_IS_LONG_FROM = 1000


@dataclass(frozen=True)
class Sample:
    """Which rows the figures were taken from."""

    since: datetime
    until: datetime
    count: Capped

    @property
    def text(self) -> str:
        """What the charts say about themselves."""
        if self.count.is_at_limit:
            return f"The newest {SAMPLE_LIMIT:,}, back to {self.since:%H:%M:%S} UTC"
        return f"The last {SAMPLE_MINUTES} minutes, UTC"


def sample(*, count: int, oldest: datetime | None) -> Sample:
    """Return what a sample covers: the last hour, or less where there was too much."""
    now = timezone.now()
    hour = now - timedelta(minutes=SAMPLE_MINUTES - 1)
    capped = Capped(count, SAMPLE_LIMIT)
    since = oldest if capped.is_at_limit and oldest is not None else hour
    return Sample(since, now, capped)


def outbox_tile() -> Tile:
    """Return how many events wait to be published, and since when."""
    waiting = OutgoingEvent.objects.order_by("id")
    depth = count_rows(waiting)
    oldest = waiting.values_list("recorded_at", flat=True).first()
    age = timezone.now() - oldest if oldest else timedelta()
    is_late = age > _OUTBOX_IS_LATE_AFTER
    return Tile(
        title="Outbox",
        value=str(depth),
        note=f"oldest event {duration(age.total_seconds())} old"
        if depth
        else "everything is published",
        icon="outbox",
        tone="bad" if is_late else "good",
        link=reverse("admin:outbox_outgoingevent_changelist"),
    )


def parked_tile() -> Tile:
    """Return how many messages wait for a person."""
    parked = parked_count()
    return Tile(
        title="Parked messages",
        value=str(parked),
        note="wait for a decision" if parked else "nothing needs you",
        icon="report",
        tone="bad" if parked else "good",
        link=_parked_list(),
    )


def queues_card() -> Card:
    """Return how long each queue of the worker is, and what is parked from it."""
    parked = _parked_by_queue()
    about: dict[str, Any] = {
        "title": "Queues",
        "headers": ["Queue", "Waiting", "Consumers", "Parked"],
        "empty": "",
        "width": "wide",
    }
    try:
        depths = queue_depths(settings.WORKER_QUEUES)
    except BrokerUnavailable:
        return Table(
            **{
                **about,
                "rows": [],
                "note": "Orders are accepted all the same; their outcome comes later.",
                "empty": "The broker does not answer, so nobody can say how long the queues are.",
            }
        )
    return Table(**about, rows=[_queue_row(depth, parked) for depth in depths])


def _queue_row(depth: QueueDepth, parked: dict[str, Capped]) -> Sequence[Cell]:
    if depth.waiting is None or depth.consumers is None:
        return [
            Cell(text=depth.name),
            Cell(text="not there yet", tone="warn", is_number=True),
            Cell(text="—", is_number=True),
            Cell(text="—", is_number=True),
        ]
    total = parked.get(depth.name, 0) + (depth.dead or 0)
    tone: Tone = "warn" if depth.waiting >= _QUEUE_IS_LONG_FROM else ""
    return [
        Cell(text=depth.name),
        Cell(text=f"{depth.waiting:,}", tone=tone, is_number=True),
        Cell(text=f"{depth.consumers:,}", tone="" if depth.consumers else "bad", is_number=True),
        Cell(
            text=f"{total:,}",
            tone="bad" if total else "",
            is_number=True,
            link=f"{_parked_list()}&queue={depth.name}" if total else "",
        ),
    ]


def _parked_by_queue() -> dict[str, Capped]:
    rows = rows_of(
        """
        SELECT queue, count(*) AS count
        FROM (
            SELECT queue FROM parked_message WHERE status = 'PARKED'
            ORDER BY last_seen DESC, id DESC LIMIT %(limit)s
        ) AS newest
        GROUP BY queue
        """,
        {"limit": SAMPLE_LIMIT},
    )
    return {row["queue"]: Capped(row["count"], SAMPLE_LIMIT) for row in rows}


def parked_card() -> Card:
    """Return the messages that were parked last."""
    newest = (
        ParkedMessage.objects.filter(status=ParkedMessage.Status.PARKED)
        .order_by("-last_seen", "-id")
        .only("routing_key", "queue", "reason", "last_seen", "times_seen")[:3]
    )
    return Table(
        title="Parked last",
        headers=["Message", "Reason"],
        rows=[
            [
                Cell(
                    text=message.routing_key or message.queue,
                    link=reverse("admin:parking_parkedmessage_change", args=[message.pk]),
                    note=ago(message.last_seen),
                ),
                Cell(text=message.reason[:120]),
            ]
            for message in newest
        ],
        empty="Every message that came could be applied.",
        link=_parked_list(),
        link_text="All parked messages",
    )


def _parked_list() -> str:
    return reverse("admin:parking_parkedmessage_changelist") + "?status__exact=PARKED"


def context(tiles: Sequence[Tile], cards: Sequence[Card]) -> dict[str, Any]:
    """Return what the start page's template takes."""
    return {
        "tiles": tiles,
        "cards": cards,
        "drawn_at": timezone.now(),
        "is_open": not settings.REQUIRE_API_KEY,
    }
