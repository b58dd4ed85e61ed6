"""A product as the outside sees it, in answers, caches and events."""

from typing import TypeVar

import msgspec

from products_project.products.models import Product, StockMovement
from servicekit.contracts.events import ProductArchived, ProductCreated, ProductUpdated
from servicekit.timestamps import rfc3339

AboutProduct = TypeVar("AboutProduct", ProductCreated, ProductUpdated, ProductArchived)


class ProductDetail(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of every answer about a product."""

    id: str
    name: str
    price: int
    qty: int
    created_at: str

    @classmethod
    def of(cls, product: Product) -> "ProductDetail":
        """Represent a product."""
        return cls(
            id=str(product.id),
            name=product.name,
            price=product.price,
            qty=product.qty,
            created_at=rfc3339(product.created_at),
        )


class StockMovementDetail(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True
):
    """One change of a product's stock; `orderId` where an order or its cancellation caused it."""

    id: int
    product_id: str
    delta: int
    reason: str
    qty_after: int
    created_at: str
    order_id: str = ""

    @classmethod
    def of(cls, movement: StockMovement) -> "StockMovementDetail":
        """Represent a movement."""
        return cls(
            id=movement.id,
            product_id=str(movement.product_id),
            delta=movement.delta,
            reason=movement.reason,
            qty_after=movement.qty_after,
            created_at=rfc3339(movement.created_at),
            order_id=movement.order_id,
        )


def announce(event: type[AboutProduct], product: Product) -> AboutProduct:
    """Return the event that carries a product's present state."""
    return event(
        id=product.id,
        name=product.name,
        price=product.price,
        qty=product.qty,
        created_at=rfc3339(product.created_at),
        version=product.version,
    )
