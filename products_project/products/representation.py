"""A product as the outside sees it, in answers, caches and events."""

from typing import Annotated, TypeVar

import msgspec

from products_project.products.models import Product, StockMovement
from servicekit.contracts.events import ProductArchived, ProductCreated, ProductUpdated
from servicekit.contracts.fields import Money, Stock, Timestamp, UUIDText
from servicekit.timestamps import rfc3339

AboutProduct = TypeVar("AboutProduct", ProductCreated, ProductUpdated, ProductArchived)


class ProductDetail(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of every answer about a product."""

    id: UUIDText
    name: Annotated[str, msgspec.Meta(examples=["Desk lamp"])]
    price: Annotated[
        Money,
        msgspec.Meta(description="In the smallest unit of the currency.", examples=[190_000]),
    ]
    qty: Annotated[Stock, msgspec.Meta(description="Units in stock.", examples=[100])]
    created_at: Timestamp

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

    id: Annotated[int, msgspec.Meta(ge=1)]
    product_id: UUIDText
    delta: Annotated[int, msgspec.Meta(description="Units added; below 0: taken.", examples=[-3])]
    reason: Annotated[str, msgspec.Meta(extra_json_schema={"enum": StockMovement.Reason.values})]
    qty_after: Annotated[Stock, msgspec.Meta(description="Units in stock after it.")]
    created_at: Timestamp
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
