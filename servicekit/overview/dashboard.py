"""What the dashboards of both services show alike: outbox, queues, dead letters."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from servicekit.backoffice.bounded_count import BoundedCount, count_rows
from servicekit.backoffice.cards import Card, Tile
from servicekit.backoffice.display import ago, badge, duration, link
from servicekit.backoffice.queues import QueueDepth, queue_depths
from servicekit.database.figures import RANGES, Range
from servicekit.dead_letters.selectors import waiting_by_queue, waiting_count, waiting_letters
from servicekit.messaging.connections import BrokerUnavailable
from servicekit.outbox.models import OutgoingEvent

SAMPLE_LIMIT = 50_000
"""No more dead letters are counted, however many there are."""

# An event usually stays in the outbox for milliseconds.
OUTBOX_IS_LATE_AFTER = timedelta(seconds=10)
QUEUE_IS_LONG_FROM = 1000
DEAD_LETTERS = "dead_letters/deadletter/?status__exact=WAITING"


@dataclass(frozen=True)
class Window:
    """What the figures of a page are about: a range, up to now."""

    range: Range
    since: datetime
    until: datetime

    @property
    def label(self) -> str:
        """The range within a sentence: `last hour`."""
        return self.range.label.lower()

    @property
    def text(self) -> str:
        """Since when, exactly."""
        day = "" if self.since.date() == self.until.date() else "%-d %b "
        return f"Since {self.since:{day}%H:%M}"


def window(request: HttpRequest) -> Window:
    """Return the range that was asked for, or the first; what is there now is its end."""
    now = timezone.now()
    chosen = RANGES.get(request.GET.get("range", ""), RANGES["hour"])
    return Window(chosen, chosen.since(now), now)


def outbox_tile() -> Tile:
    """Return how many events wait to be published, and since when."""
    depth = count_rows(OutgoingEvent.objects.order_by("id"))
    age = OutgoingEvent.objects.oldest_age() or timedelta()
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
        note="waiting for a decision" if waiting else "none waiting",
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
    about: dict[str, Any] = {"title": "Queues", "width": "lg:col-span-2 figures"}
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
        f"{in_hand}+" if depth.hides_some else in_hand,
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


def context(shown: Window, tiles: Sequence[Tile], cards: Sequence[Card]) -> dict[str, Any]:
    """Return what the start page's template takes."""
    return {
        "ranges": RANGES.values(),
        "range": shown.range,
        "covers": shown.text,
        "tiles": tiles,
        "cards": cards,
        "drawn_at": shown.until,
        "is_open": not settings.REQUIRE_API_KEY,
    }
