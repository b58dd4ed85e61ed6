"""Reading orders."""

from dataclasses import dataclass
from uuid import UUID

import msgspec
from django.db import InterfaceError, OperationalError

from orders_project.orders import cache
from orders_project.orders.models import Order
from orders_project.orders.representation import OrderDetail
from servicekit.caching.redis import UNAVAILABLE


class OrderNotFound(Exception):
    """There is no order with this id."""

    def __init__(self, order_id: object) -> None:
        super().__init__(f"There is no order {order_id}.")


class OrderNotVisibleYet(Exception):
    """Whether there is such an order cannot be told now; in a moment it can."""

    def __init__(self, order_id: object) -> None:
        super().__init__(f"Whether there is an order {order_id} cannot be told now.")


@dataclass(frozen=True)
class Page:
    """Orders, newest first, and whether older ones follow."""

    orders: list[Order]
    has_more: bool


def get_rendered_order(order_id: UUID) -> bytes:
    """Return an order as it is answered: stored, or accepted and on its way to being stored.

    :raises OrderNotFound: if there is none
    :raises OrderNotVisibleYet: if it may be where we cannot look now
    :raises OperationalError: if the database is away and Redis does not have it
    """
    try:
        stored = _stored(order_id)
        if stored is None:
            return _accepted(order_id)
    except (OperationalError, InterfaceError):
        accepted = cache.get_accepted(order_id)
        if accepted is None or accepted is UNAVAILABLE:
            raise
        return accepted
    return stored


def _accepted(order_id: UUID) -> bytes:
    accepted = cache.get_accepted(order_id)
    if accepted is UNAVAILABLE:
        raise OrderNotVisibleYet(order_id)
    if accepted is None:
        # Stored, and its copy dropped, between our two looks?
        accepted = _stored(order_id)
    if accepted is None:
        raise OrderNotFound(order_id)
    return accepted


def _stored(order_id: UUID) -> bytes | None:
    order = Order.objects.filter(id=order_id).first()
    return msgspec.json.encode(OrderDetail.of(order)) if order else None


def orders_page(*, product_id: UUID, status: str | None, limit: int, after: UUID | None) -> Page:
    """Return at most `limit` orders of a product, newest first, older than the order `after`."""
    orders = Order.objects.filter(product_id=product_id).order_by("-id")
    if status is not None:
        orders = orders.filter(status=status)
    if after is not None:
        orders = orders.filter(id__lt=after)
    # One more than asked for, to know whether it is worth asking again.
    found = list(orders[: limit + 1])
    return Page(found[:limit], len(found) > limit)
