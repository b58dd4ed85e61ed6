"""The start page of the order service's admin."""

from collections.abc import Sequence
from typing import Any

from django.db.models import Sum
from django.http import HttpRequest
from django.urls import reverse

from orders_project.orders.admin.orders import STATUS_TONES
from orders_project.orders.commands import PersistOrders
from orders_project.orders.models import Order, OrderFigures
from servicekit.backoffice import cards
from servicekit.backoffice.bounded_count import count_rows
from servicekit.backoffice.cards import Card, Series, Tile
from servicekit.backoffice.display import ago, counted
from servicekit.backoffice.money import money
from servicekit.backoffice.queues import QueueDepth
from servicekit.overview import dashboard as common
from servicekit.overview.dashboard import Window

Status = Order.Status

COLOURS = {
    Status.CONFIRMED: cards.GREEN,
    Status.PENDING: cards.AMBER,
    Status.REJECTED: cards.RED,
    Status.CANCELLED: cards.GREY,
}


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add the figures to the context of the start page.

    Their cost does not depend on how many orders there are: they are counted already.
    """
    shown = common.window(request)
    figures = _figures(shown)
    depths = common.depths_of_queues()
    tiles = [
        _orders_tile(figures),
        _revenue_tile(figures),
        _pending_tile(depths),
        common.outbox_tile(),
        common.dead_letters_tile(),
    ]
    drawn: list[Card] = [
        _over_time(figures, shown),
        _by_status(figures, shown),
        common.queues_card(depths),
        common.latest_dead_letters_card(),
    ]
    return {**context, **common.context(shown, tiles, drawn)}


def _figures(shown: Window) -> list[dict[str, Any]]:
    """Return how many orders that were accepted at a time have which status, and bring in what."""
    rows = OrderFigures.within(shown.range.bar, shown.since).values("start")
    return list(rows.annotate(**{f"{name}_": Sum(name) for name in OrderFigures.sums()}))


def _total(figures: list[dict[str, Any]], name: str) -> int:
    return sum(int(row[f"{name}_"]) for row in figures)


def _orders_tile(figures: list[dict[str, Any]]) -> Tile:
    return Tile(
        title="Orders",
        value=f"{sum(_total(figures, status.lower()) for status in COLOURS):,}",
        note="accepted",
        link=reverse("admin:orders_order_changelist"),
    )


def _revenue_tile(figures: list[dict[str, Any]]) -> Tile:
    return Tile(
        title="Revenue",
        value=money(_total(figures, "revenue")),
        note=f"of {counted(_total(figures, 'confirmed'), 'confirmed order')}",
        link=reverse("admin:orders_order_changelist") + "?status__exact=CONFIRMED",
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
            is_all = depth.in_hand is not None and not depth.hides_some
            if count:
                least = "" if is_all else "at least "
                return f"{least}{counted(count, 'message')} with orders to be stored"
            if is_all:
                return ""
    return "how many are not stored yet is unknown"


def _over_time(figures: list[dict[str, Any]], shown: Window) -> Card:
    return cards.over_time(
        [
            Series(
                label=str(status.label),
                colour=colour,
                values={row["start"]: row[f"{status.lower()}_"] for row in figures},
            )
            for status, colour in COLOURS.items()
        ],
        since=shown.since,
        until=shown.until,
        bar=shown.range.bar,
        title=f"Orders per {shown.range.bar_label}",
        empty=f"No orders in the {shown.label}. They appear here a moment after they are accepted.",
    )


def _by_status(figures: list[dict[str, Any]], shown: Window) -> Card:
    return cards.shares(
        [
            (str(status.label), _total(figures, status.lower()), STATUS_TONES[status])
            for status in COLOURS
        ],
        title="By status",
        empty=f"No orders in the {shown.label}.",
    )
