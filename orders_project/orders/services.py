"""Writing orders: storing, settling, cancelling, announcing again."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from orders_project.orders import cache, catalog, origins, selectors
from orders_project.orders.models import Order
from orders_project.orders.representation import announce, announce_cancellation
from servicekit import metrics
from servicekit.contracts.commands import AcceptedOrder
from servicekit.contracts.events import (
    ProductArchived,
    ProductCreated,
    ProductUpdated,
    StockRejected,
    StockReleased,
    StockReserved,
)
from servicekit.contracts.fields import as_uuid
from servicekit.failpoints import failpoint
from servicekit.messaging.consumer import Unprocessable
from servicekit.outbox import recording
from servicekit.timestamps import now_in_milliseconds


class OrderIsRejected(Exception):
    """The order was rejected: there is nothing to cancel."""

    def __init__(self, order_id: object) -> None:
        super().__init__(f"The order {order_id} was rejected; there is nothing to cancel.")


def place_orders(accepted: Sequence[AcceptedOrder]) -> int:
    """Store orders and record the events that announce them; return how many were new.

    An order that is stored already is left as it is, so a batch that is delivered twice, or that
    the web process stored by itself, is announced once.
    """
    # A retry that shares its id with the first attempt may share the batch with it, too.
    by_id = {order.id: order for order in reversed(accepted)}
    with origins.of_orders(by_id.values()), transaction.atomic(durable=True):
        new = Order.objects.insert_new(list(by_id.values()))
        recording.record_all(announce(by_id[order_id]) for order_id in sorted(new))
        failpoint("orders.place.before_commit")
    failpoint("orders.place.after_commit")
    cache.forget_lists(order.product_id for order in by_id.values())
    cache.forget_accepted(by_id)
    return len(new)


def settle_orders(
    outcomes: Sequence[StockReserved | StockRejected | StockReleased],
) -> list[Unprocessable]:
    """Give orders the status that their stock decided. A final status is never changed.

    Returns the outcomes that cannot be: for an order that is not stored, or against its final
    status. The same outcome again is no news, and outcomes of other systems' orders are not ours.
    """
    unprocessable: list[Unprocessable] = []
    with transaction.atomic(durable=True):
        ids = [as_uuid(outcome.order_id) for outcome in outcomes]
        orders = Order.objects.lock(order_id for order_id in ids if order_id is not None)
        changed: dict[UUID, Order] = {}
        settled: list[Order] = []
        for order_id, outcome in zip(ids, outcomes, strict=True):
            if order_id is None:
                continue
            order = orders.get(order_id)
            if order is None:
                unprocessable.append(Unprocessable(outcome, "no such order is stored"))
                continue
            status_before = order.status
            try:
                if _apply(outcome, order):
                    changed[order.id] = order
                if order.status != status_before:
                    settled.append(order)
            except _Contradiction as contradiction:
                unprocessable.append(Unprocessable(outcome, str(contradiction)))
        Order.objects.write_outcomes(changed.values())
        failpoint("orders.settle.before_commit")
    failpoint("orders.settle.after_commit")
    for order in settled:
        metrics.ORDERS_SETTLED.labels(order.status).inc()
    # Also of those that were settled before: if we died here the last time, this is when the
    # cache hears of it.
    cache.forget_lists(order.product_id for order in orders.values())
    cache.tell_final(orders)
    catalog.refresh_stock(outcomes)
    return unprocessable


class _Contradiction(Exception):
    """The outcome cannot be that of this order."""


_STATUS_AFTER = {
    StockReserved: Order.Status.CONFIRMED,
    StockRejected: Order.Status.REJECTED,
    StockReleased: Order.Status.CANCELLED,
}


def _apply(outcome: StockReserved | StockRejected | StockReleased, order: Order) -> bool:
    """Change a locked order as its stock was decided; return whether there is anything to write.

    :raises _Contradiction: if its status says the opposite
    """
    status = _STATUS_AFTER[type(outcome)]
    if isinstance(outcome, StockReleased):
        if order.status != status:
            raise _Contradiction(
                f"the order is {order.status}, and nothing of it was to be released"
            )
        is_news = order.released_at is None
        order.released_at = order.released_at or _moment(outcome.released_at)
        return is_news
    if order.status == Order.Status.PENDING:
        order.status = status
        order.settled_at = now_in_milliseconds()
    elif order.status not in (status, Order.Status.CANCELLED):
        raise _Contradiction(f"the order is {order.status} already")
    elif order.decided_at is not None:
        return False
    # One that was cancelled meanwhile keeps its status, and only learns what had been decided.
    order.reason = outcome.reason if isinstance(outcome, StockRejected) else ""
    order.announced_at = _moment(outcome.announced_at)
    order.decided_at = _moment(outcome.decided_at) or now_in_milliseconds()
    return True


def _moment(text: str | None) -> datetime | None:
    """Return the time in an event, if it says one: it is for the timeline, and decides nothing."""
    try:
        moment = datetime.fromisoformat(text) if text else None
        if moment is None or moment.tzinfo is None:
            return moment and moment.replace(tzinfo=UTC)
        # PostgreSQL would take the year 10000, or one before Christ, and nobody could read it back.
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def cancel_order(order_id: UUID) -> Order:
    """Cancel an order, and announce it in the same transaction, so that its stock comes back.

    Cancelled twice, it is cancelled once.

    :raises OrderNotFound: if there is none
    :raises OrderNotVisibleYet: if it may be where we cannot look now
    :raises OrderIsRejected: if it was rejected, and there is nothing to cancel
    """
    order = _cancel_stored(order_id)
    if order is None:
        # Accepted, and still on its way to the worker, who will find it stored.
        place_orders([selectors.get_accepted_order(order_id)])
        order = _cancel_stored(order_id)
    if order is None:
        raise selectors.OrderNotFound(order_id)
    cache.forget_lists([order.product_id])
    cache.tell_final([order.id])
    return order


def _cancel_stored(order_id: UUID) -> Order | None:
    with transaction.atomic(durable=True):
        order = Order.objects.lock([order_id]).get(order_id)
        if order is None or order.status == Order.Status.CANCELLED:
            return order
        if order.status == Order.Status.REJECTED:
            raise OrderIsRejected(order_id)
        order.status = Order.Status.CANCELLED
        order.cancelled_at = now_in_milliseconds()
        order.save(update_fields=["status", "cancelled_at"])
        recording.record_all([announce_cancellation(order)])
    metrics.ORDERS_SETTLED.labels(order.status).inc()
    return order


def refresh_catalog(
    changes: Sequence[ProductCreated | ProductUpdated | ProductArchived],
) -> list[Unprocessable]:
    """Bring our copies of products up to date with what the product service says of them."""
    catalog.refresh_products(changes)
    return []


def announce_again(order_ids: Collection[UUID]) -> int:
    """Announce orders once more whose outcome or release is missing; return how many.

    Whoever has decided them before answers again, with the same decision.
    """
    with transaction.atomic(durable=True):
        orders = Order.objects.lock(order_ids).values()
        undecided = [order for order in orders if order.status == Order.Status.PENDING]
        unreleased = [
            order
            for order in orders
            if order.status == Order.Status.CANCELLED and order.released_at is None
        ]
        recording.record_all(announce(order) for order in undecided)
        recording.record_all(announce_cancellation(order) for order in unreleased)
    return len(undecided) + len(unreleased)


def announce_overdue_orders(*, limit: int = 500) -> int:
    """Announce again the orders that have waited too long for their outcome; return how many.

    The event has the same id as before, and is decided once: asking again costs a message, and
    brings back an answer that went missing. The pauses double with the age of the order.
    """
    with transaction.atomic(durable=True):
        overdue = Order.objects.claim_overdue(limit)
        recording.record_all(announce(order) for order in overdue)
        Order.objects.filter(id__in=[order.id for order in overdue]).update(
            announce_at=Now() + (Now() - F("created_at"))
        )
    return len(overdue)
