"""An order as the outside sees it, in answers, caches and events."""

import msgspec

from orders_project.orders.models import Order
from servicekit.contracts.commands import AcceptedOrder
from servicekit.contracts.events import OrderCreated
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


def announce(order: Order | AcceptedOrder) -> OrderCreated:
    """Return the event that announces an order."""
    return OrderCreated(
        order_id=str(order.id),
        product_id=order.product_id,
        quantity=order.quantity,
        total_price=order.total_price,
        created_at=rfc3339(order.created_at),
    )
