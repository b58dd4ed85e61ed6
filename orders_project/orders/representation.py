"""An order as the outside sees it, in answers, caches and events."""

from typing import Annotated
from uuid import UUID

import msgspec

from orders_project.orders.commands import AcceptedOrder
from orders_project.orders.models import Order
from servicekit.contracts.events import OrderCancelled, OrderCreated
from servicekit.contracts.fields import Money, Quantity, Timestamp, UUIDText
from servicekit.timestamps import rfc3339

Status = Annotated[
    str,
    msgspec.Meta(
        description="PENDING until its stock is decided.",
        extra_json_schema={"enum": Order.Status.values},
    ),
]
TIMELINE_STEPS = [
    "accepted",
    "stored",
    "announced",
    "reserved",
    "rejected",
    "settled",
    "cancelled",
    "released",
]


class Cancellation(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """When an order was cancelled; by whom and why, as far as that is known."""

    cancelled_at: Timestamp
    by: Annotated[
        str | msgspec.UnsetType,
        msgspec.Meta(
            description="The name of a user of the admin, or `API key` and the name of the key;"
            " `API client` without one.",
            examples=["API key web shop"],
        ),
    ] = msgspec.UNSET
    reason: Annotated[
        str | msgspec.UnsetType, msgspec.Meta(examples=["Ordered twice by mistake."])
    ] = msgspec.UNSET

    @classmethod
    def of(cls, order: Order | AcceptedOrder) -> "Cancellation | msgspec.UnsetType":
        """Represent what is known of it; unset if the order is not cancelled."""
        if not isinstance(order, Order) or order.cancelled_at is None:
            return msgspec.UNSET
        return cls(
            cancelled_at=rfc3339(order.cancelled_at),
            by=order.cancelled_by or msgspec.UNSET,
            reason=order.cancel_reason or msgspec.UNSET,
        )


class OrderDetail(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of every answer about an order; `cancellation` if it is CANCELLED."""

    id: UUID
    product_id: UUID
    quantity: Annotated[Quantity, msgspec.Meta(examples=[3])]
    total_price: Annotated[
        Money,
        msgspec.Meta(
            description="Quantity times price, of the moment of the order.", examples=[570_000]
        ),
    ]
    status: Status
    created_at: Timestamp
    cancellation: Cancellation | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def of(cls, order: Order | AcceptedOrder) -> "OrderDetail":
        """Represent an order; one that is accepted and not stored yet is PENDING."""
        return cls(
            id=order.id,
            product_id=order.product_id,
            quantity=order.quantity,
            total_price=order.total_price,
            status=order.status if isinstance(order, Order) else Order.Status.PENDING.value,
            created_at=rfc3339(order.created_at),
            cancellation=Cancellation.of(order),
        )


class TimelineStepDetail(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A step of an order's timeline: its time, and the milliseconds since the step before."""

    name: Annotated[str, msgspec.Meta(extra_json_schema={"enum": TIMELINE_STEPS})]
    at: Timestamp
    since_previous_ms: int | None


class TimelineDetail(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What has happened to an order so far; `reason` where it got no stock."""

    order_id: UUIDText
    status: Status
    reason: str = ""
    steps: list[TimelineStepDetail]


def order_created(order: Order | AcceptedOrder) -> OrderCreated:
    """Return the event that announces an order."""
    return OrderCreated(
        order_id=str(order.id),
        product_id=order.product_id,
        quantity=order.quantity,
        total_price=order.total_price,
        created_at=rfc3339(order.created_at),
    )


def order_cancelled(order: Order) -> OrderCancelled:
    """Return the event that tells that an order is cancelled."""
    return OrderCancelled(
        order_id=str(order.id),
        product_id=order.product_id,
        quantity=order.quantity,
        cancelled_at=rfc3339(order.cancelled_at) if order.cancelled_at else None,
    )
