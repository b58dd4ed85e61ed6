"""An order as the outside sees it, in answers, caches and events."""

import msgspec

from orders_project.orders.models import Order
from servicekit.contracts.commands import AcceptedOrder
from servicekit.contracts.events import OrderCancelled, OrderCreated
from servicekit.timestamps import rfc3339


class OrderDetail(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of every answer about an order."""

    id: str
    product_id: str
    quantity: int
    total_price: int
    status: str
    created_at: str

    @classmethod
    def of(cls, order: Order | AcceptedOrder) -> "OrderDetail":
        """Represent an order; one that is accepted and not stored yet is PENDING."""
        return cls(
            id=str(order.id),
            product_id=str(order.product_id),
            quantity=order.quantity,
            total_price=order.total_price,
            status=order.status if isinstance(order, Order) else Order.Status.PENDING.value,
            created_at=rfc3339(order.created_at),
        )


class TimelineStepDetail(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A step of an order's timeline: its time, and the milliseconds since the step before."""

    name: str
    at: str
    since_previous_ms: int | None


class TimelineDetail(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What has happened to an order so far."""

    order_id: str
    status: str
    steps: list[TimelineStepDetail]


def announce(order: Order | AcceptedOrder) -> OrderCreated:
    """Return the event that announces an order."""
    return OrderCreated(
        order_id=str(order.id),
        product_id=order.product_id,
        quantity=order.quantity,
        total_price=order.total_price,
        created_at=rfc3339(order.created_at),
    )


def announce_cancellation(order: Order) -> OrderCancelled:
    """Return the event that tells that an order is cancelled."""
    return OrderCancelled(
        order_id=str(order.id),
        product_id=order.product_id,
        quantity=order.quantity,
        cancelled_at=rfc3339(order.cancelled_at) if order.cancelled_at else None,
    )
