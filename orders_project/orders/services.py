"""Writing orders: storing, settling, cancelling, announcing again."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from msgspec.structs import replace

from orders_project.orders import cache, catalog, selectors
from orders_project.orders.commands import AcceptedOrder
from orders_project.orders.models import RECHECK_AFTER_SECONDS, Order, Settlement
from orders_project.orders.representation import order_cancelled, order_created
from servicekit import metrics
from servicekit.contracts.events import (
    Event,
    OrderCreated,
    ProductArchived,
    ProductCreated,
    ProductUpdated,
    StockDecided,
    StockDecision,
    StockOutcome,
    StockReleased,
)
from servicekit.contracts.fields import as_uuid
from servicekit.failpoints import failpoint
from servicekit.messaging.consumer import Handled, Unprocessable
from servicekit.messaging.envelope import Received, event_message
from servicekit.messaging.publisher import ConfirmingPublisher, PublishingFailed
from servicekit.outbox import recording
from servicekit.timestamps import now_in_milliseconds, read_moment

# The queue of the products worker may be away for a moment, or not be there yet.
_RETRY_UNWANTED = timedelta(seconds=5)


class OrderIsRejected(Exception):
    """The order was rejected: there is nothing to cancel."""

    def __init__(self, order_id: object) -> None:
        super().__init__(f"The order {order_id} was rejected; there is nothing to cancel.")


def place_orders(
    accepted: Sequence[AcceptedOrder], *, recheck_after_seconds: int = RECHECK_AFTER_SECONDS
) -> list[OrderCreated]:
    """Store orders that are not stored yet; return the events of those still undecided.

    The caller publishes the events and acknowledges afterwards. A batch that is delivered twice,
    or that the web process stored by itself, is stored once and announced again, under the same
    event ids. Whatever is lost on the way, the watchdog announces after `recheck_after_seconds`.
    The events are in the order of the batch: who came first has the first claim to the stock.
    """
    by_id: dict[UUID, AcceptedOrder] = {}
    for order in accepted:
        # A retry that shares its id with the first attempt may share the batch with it, too.
        by_id.setdefault(order.id, order)
    with transaction.atomic(durable=True):
        new = Order.objects.insert_new(
            list(by_id.values()), recheck_after_seconds=recheck_after_seconds
        )
        known = by_id.keys() - new
        pending = Order.objects.pending(known) if known else []
        failpoint("orders.place.before_commit")
    failpoint("orders.place.after_commit")
    cache.forget_lists(order.product_id for order in by_id.values())
    cache.forget_accepted(by_id)
    # What was known before is announced as it was stored.
    undecided = {order_id: by_id[order_id] for order_id in new} | {o.id: o for o in pending}
    return [order_created(undecided[order_id]) for order_id in by_id if order_id in undecided]


def settle_orders(batch: Sequence[Received[StockDecided | StockReleased]]) -> Handled:
    """Give orders the status that their stock decided. A final status is never changed.

    Refused is what cannot be: an outcome for an order that is not stored, of another product or
    quantity, or against its final status. The same outcome again is no news, and outcomes of orders
    that others have announced, and that are not stored here, are not ours.
    """
    answers = [
        (each.event, answer, as_uuid(answer.order_id))
        for each in batch
        for answer in _answers_in(each.event)
    ]
    with transaction.atomic(durable=True):
        orders = Order.objects.lock_for_settling(
            order_id for _, _, order_id in answers if order_id is not None
        )
        changed, refused = settle(answers, orders, now_in_milliseconds())
        if changed:
            Order.objects.write_settlements(changed.values())
        failpoint("orders.settle.before_commit")
    failpoint("orders.settle.after_commit")
    settled = (each.status for key, each in changed.items() if each.status != orders[key].status)
    for status, count in Counter(settled).items():
        metrics.ORDERS_SETTLED.labels(status).inc(count)
    # Also of those that were settled before: if we died here the last time, this is when the
    # cache hears of it.
    cache.forget_lists(order.product_id for order in orders.values())
    cache.publish_settled(orders)
    catalog.refresh_stock([answer for _, answer, _ in answers])
    return Handled(unprocessable=refused)


def _answers_in(event: StockDecided | StockReleased) -> Sequence[StockDecision | StockReleased]:
    return event.decisions if isinstance(event, StockDecided) else (event,)


def settle(
    answers: Sequence[tuple[Event, StockDecision | StockReleased, UUID | None]],
    orders: Mapping[UUID, Settlement],
    now: datetime,
) -> tuple[dict[UUID, Settlement], list[Unprocessable]]:
    """Return what becomes of orders, where it is news, and the events that cannot be; do nothing.

    `answers` are told by an event each, about an order of ours, or somebody else's.
    """
    changed: dict[UUID, Settlement] = {}
    refused: dict[int, Unprocessable] = {}
    for event, answer, order_id in answers:
        if order_id is None:
            continue
        try:
            if after := _settled(answer, changed.get(order_id) or orders.get(order_id), now):
                changed[order_id] = after
        except _Contradiction as contradiction:
            refused.setdefault(id(event), Unprocessable(event, str(contradiction)))
    return changed, list(refused.values())


class _Contradiction(Exception):
    """The outcome cannot be that of this order."""


def _settled(
    answer: StockDecision | StockReleased, order: Settlement | None, now: datetime
) -> Settlement | None:
    """Return a locked order as its stock was decided; None, if that is no news.

    :raises _Contradiction: if it is of another product or quantity, or its status says the opposite
    """
    if order is None:
        if answer.foreign:
            return None
        raise _Contradiction(f"no order {answer.order_id} is stored")
    if (answer.product_id, answer.quantity) != (order.product_id, order.quantity):
        raise _Contradiction(
            f"order {order.id} is of {order.quantity} units of {order.product_id},"
            f" this is about {answer.quantity} of {answer.product_id}"
        )
    is_cancelled = order.status == Order.Status.CANCELLED
    if isinstance(answer, StockReleased):
        if not is_cancelled:
            raise _Contradiction(
                f"order {order.id} is {order.status}, and nothing of it was to be released"
            )
        at = read_moment(answer.released_at) or now
        news = {"is_released": True, "is_complete": True, "released_at": at}
        return None if order.is_released else replace(order, **news)
    if answer.outcome is StockOutcome.CANCELLED:
        if not is_cancelled:
            raise _Contradiction(f"order {order.id} is {order.status}, and was not cancelled")
        return None if order.is_complete else replace(order, is_complete=True)
    is_reserved = answer.outcome is StockOutcome.RESERVED
    status = Order.Status.CONFIRMED if is_reserved else Order.Status.REJECTED
    is_pending = order.status == Order.Status.PENDING
    if not (is_pending or is_cancelled or order.status == status):
        raise _Contradiction(f"order {order.id} is {order.status} already")
    # One that was cancelled meanwhile keeps its status, and only learns what had been decided.
    is_complete = not (is_cancelled and is_reserved) or order.is_released
    if order.is_decided:
        return replace(order, is_complete=True) if is_complete and is_cancelled else None
    return replace(
        order,
        status=status.value if is_pending else order.status,
        settled_at=now if is_pending else None,
        is_complete=is_complete,
        is_decided=True,
        reason=answer.reason,
        announced_at=read_moment(answer.announced_at),
        decided_at=read_moment(answer.decided_at) or now,
    )


def cancel_order(order_id: UUID, *, by: str | None = None, reason: str | None = None) -> Order:
    """Cancel an order, and announce it in the same transaction, so that its stock comes back.

    Cancelled twice, it is cancelled once: by whom and why is what the first one has said.

    :raises OrderNotFound: if there is none
    :raises OrderNotVisibleYet: if it may be where we cannot look now
    :raises OrderIsRejected: if it was rejected, and there is nothing to cancel
    """
    order = _cancel_stored(order_id, by, reason)
    if order is None:
        # Accepted, and still on its way to the worker, who will find it stored.
        place_orders([selectors.get_accepted_order(order_id)])
        order = _cancel_stored(order_id, by, reason)
    if order is None:
        raise selectors.OrderNotFound(order_id)
    cache.forget_lists([order.product_id])
    cache.publish_settled([order.id])
    return order


def _cancel_stored(order_id: UUID, by: str | None, reason: str | None) -> Order | None:
    with transaction.atomic(durable=True):
        order = Order.objects.lock([order_id]).get(order_id)
        if order is None or order.status == Order.Status.CANCELLED:
            return order
        if order.status == Order.Status.REJECTED:
            raise OrderIsRejected(order_id)
        order.status = Order.Status.CANCELLED
        order.cancelled_at = now_in_milliseconds()
        order.recheck_at = order.cancelled_at + timedelta(seconds=RECHECK_AFTER_SECONDS)
        order.cancelled_by, order.cancel_reason = by, reason or None
        facts = ("cancelled_at", "cancelled_by", "cancel_reason")
        order.save(update_fields=["status", "recheck_at", *facts])
        recording.record_all([order_cancelled(order)])
    metrics.ORDERS_SETTLED.labels(order.status).inc()
    return order


def refresh_catalog(
    batch: Sequence[Received[ProductCreated | ProductUpdated | ProductArchived]],
) -> Handled:
    """Bring our copies of products up to date with what the product service says of them."""
    catalog.refresh_products(batch)
    return Handled()


def recheck_soon(order_ids: Sequence[str]) -> None:
    """Have the watchdog announce orders again soon: nobody has taken their announcement."""
    Order.objects.recheck_in(_RETRY_UNWANTED, [UUID(order_id) for order_id in order_ids])


def announce_overdue_orders(publisher: ConfirmingPublisher, *, limit: int = 500) -> int:
    """Ask again about orders that have waited too long for an answer; return how many.

    This is a relay over the orders themselves: it announces those whose announcement or answer went
    missing, those that the web process had to store by itself, and cancelled ones whose stock was
    not given back. The events have the same ids as before, and have one effect: asking again costs
    a message, and brings back the answer.

    :raises PublishingFailed: if the broker is away; they are due at once then
    """
    orders = Order.objects.claim_overdue(limit)
    if not orders:
        return 0
    events = [
        order_cancelled(order) if order.status == Order.Status.CANCELLED else order_created(order)
        for order in orders
    ]
    try:
        publisher.publish([event_message(event) for event in events])
    except PublishingFailed:
        Order.objects.recheck_now([order.id for order in orders])
        raise
    return len(orders)
