"""The start page of the order service's admin."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from orders_project.orders.admin.orders import STATUS_TONES
from orders_project.orders.commands import PersistOrders
from orders_project.orders.models import Order
from servicekit.backoffice import cards
from servicekit.backoffice.bounded_count import count_rows, rows_of
from servicekit.backoffice.cards import Card, Series, Tile
from servicekit.backoffice.display import ago, counted
from servicekit.backoffice.queues import QueueDepth
from servicekit.overview import dashboard as common

Status = Order.Status

COLOURS = {
    Status.CONFIRMED: cards.GREEN,
    Status.PENDING: cards.AMBER,
    Status.REJECTED: cards.RED,
    Status.CANCELLED: cards.GREY,
}


def dashboard(_request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add the figures to the context of the start page.

    Their cost does not depend on how many orders there are: each is taken from a bounded sample
    of the newest, by index.
    """
    minutes = _newest_by_minute_and_status()
    sample = common.sample(minutes)
    depths = common.depths_of_queues()
    tiles = [
        _orders_tile(sample),
        _pending_tile(depths),
        common.outbox_tile(),
        common.dead_letters_tile(),
    ]
    shown: list[Card] = [
        _per_minute(minutes, sample),
        _by_status(minutes, sample),
        common.queues_card(depths),
        common.latest_dead_letters_card(),
    ]
    return {**context, **common.context(tiles, shown)}


def _newest_by_minute_and_status() -> list[dict[str, Any]]:
    return rows_of(
        """
        SELECT date_trunc('minute', created_at) AS minute, status, count(*) AS count,
               min(created_at) AS oldest
        FROM (
            SELECT created_at, status FROM "order"
            WHERE created_at > now() - make_interval(mins => %(minutes)s)
            ORDER BY created_at DESC, id DESC LIMIT %(limit)s
        ) AS newest
        GROUP BY 1, 2
        """,
        {"minutes": common.SAMPLE_MINUTES, "limit": common.SAMPLE_LIMIT},
    )


def _orders_tile(sample: common.Sample) -> Tile:
    return Tile(
        title="Orders, last hour",
        value=str(sample.count),
        note=sample.text if sample.count.is_at_limit else "accepted",
        link=reverse("admin:orders_order_changelist"),
    )


def _pending_tile(depths: Sequence[QueueDepth]) -> Tile:
    pending = Order.objects.filter(status=Status.PENDING)
    # The index is read from its other end.
    oldest = pending.order_by("created_at", "id").values_list("created_at", flat=True).first()
    count = count_rows(pending.order_by("-created_at", "-id"))
    notes = [f"the oldest was created {ago(oldest)}" if oldest else "", _not_stored_yet(depths)]
    return Tile(
        title="Pending orders",
        value=str(count),
        note="; ".join(filter(None, notes)) or "all orders are decided",
        tone="warning" if any(notes) else "success",
        link=reverse("admin:orders_order_changelist") + "?status__exact=PENDING",
    )


def _not_stored_yet(depths: Sequence[QueueDepth]) -> str:
    """Say how many messages, each of up to 500 accepted orders, wait to be stored."""
    for depth in depths:
        if depth.name == PersistOrders.queue and depth.waiting is not None:
            count = depth.waiting + (depth.in_hand or 0)
            is_all = depth.in_hand is not None and not (depth.consumers and depth.trouble)
            if count:
                least = "" if is_all else "at least "
                return f"{least}{counted(count, 'message')} with orders to be stored"
            if is_all:
                return ""
    return "how many are not stored yet is unknown"


def _per_minute(minutes: list[dict[str, Any]], sample: common.Sample) -> Card:
    counts: dict[str, dict[datetime, int]] = {status: {} for status in COLOURS}
    for row in minutes:
        counts[row["status"]][row["minute"]] = row["count"]
    return cards.per_minute(
        [
            Series(label=str(status.label), colour=colour, values=counts[status])
            for status, colour in COLOURS.items()
        ],
        since=sample.since,
        until=sample.until,
        title="Orders per minute",
        note=sample.text,
        empty="No orders in the last hour. They appear here a moment after they are accepted.",
    )


def _by_status(minutes: list[dict[str, Any]], sample: common.Sample) -> Card:
    counts: Counter[str] = Counter()
    for row in minutes:
        counts[row["status"]] += row["count"]
    return cards.shares(
        [(str(status.label), counts[status], STATUS_TONES[status]) for status in COLOURS],
        title="By status",
        note=sample.text,
        empty="No orders in the last hour.",
    )
