"""Writing orders: storing, settling, announcing again."""

from collections.abc import Sequence

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from orders_project.orders import cache, catalog
from orders_project.orders.models import Order
from orders_project.orders.representation import announce
from servicekit import metrics
from servicekit.contracts.commands import AcceptedOrder
from servicekit.contracts.events import (
    ProductCreated,
    ProductUpdated,
    StockRejected,
    StockReserved,
)
from servicekit.contracts.fields import as_uuid
from servicekit.failpoints import failpoint
from servicekit.messaging.consumer import Unprocessable
from servicekit.outbox import recording


def place_orders(accepted: Sequence[AcceptedOrder]) -> int:
    """Store orders and record the events that announce them; return how many were new.

    An order that is stored already is left as it is, so a batch that is delivered twice, or that
    the web process stored by itself, is announced once.
    """
    # A retry that shares its id with the first attempt may share the batch with it, too.
    by_id = {order.id: order for order in reversed(accepted)}
    with transaction.atomic(durable=True):
        new = Order.objects.insert_new(list(by_id.values()))
        recording.record_all(announce(by_id[order_id]) for order_id in sorted(new))
        failpoint("orders.place.before_commit")
    failpoint("orders.place.after_commit")
    cache.forget_lists(order.product_id for order in by_id.values())
    cache.forget_accepted(by_id)
    return len(new)


def settle_orders(outcomes: Sequence[StockReserved | StockRejected]) -> list[Unprocessable]:
    """Give orders the status that their stock decided. A final status is never changed.

    Returns the outcomes that cannot be: for an order that is not stored, or against its final
    status. The same outcome again is no news, and outcomes of other systems' orders are not ours.
    """
    unprocessable: list[Unprocessable] = []
    with transaction.atomic(durable=True):
        ids = [as_uuid(outcome.order_id) for outcome in outcomes]
        orders = Order.objects.lock(order_id for order_id in ids if order_id is not None)
        settled = []
        for order_id, outcome in zip(ids, outcomes, strict=True):
            if order_id is None:
                continue
            order = orders.get(order_id)
            if order is None:
                unprocessable.append(Unprocessable(outcome, "no such order is stored"))
                continue
            status = (
                Order.Status.CONFIRMED
                if isinstance(outcome, StockReserved)
                else Order.Status.REJECTED
            )
            if order.status == Order.Status.PENDING:
                order.status = status
                order.reason = outcome.reason if isinstance(outcome, StockRejected) else ""
                settled.append(order)
            elif order.status != status:
                unprocessable.append(Unprocessable(outcome, f"the order is {order.status} already"))
        Order.objects.settle(settled)
        failpoint("orders.settle.before_commit")
    failpoint("orders.settle.after_commit")
    for order in settled:
        metrics.ORDERS_SETTLED.labels(order.status).inc()
    # Also of those that were settled before: if we died here the last time, this is when the
    # cache hears of it.
    cache.forget_lists(order.product_id for order in orders.values())
    catalog.refresh_stock(outcomes)
    return unprocessable


def refresh_catalog(changes: Sequence[ProductCreated | ProductUpdated]) -> list[Unprocessable]:
    """Bring our copies of products up to date with what the product service says of them."""
    catalog.refresh_products(changes)
    return []


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
