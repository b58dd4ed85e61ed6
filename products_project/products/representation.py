"""A product as the outside sees it, in answers, caches and events."""

from typing import Annotated, TypeVar

import msgspec

from products_project.products.models import Product
from servicekit.contracts.events import ProductCreated, ProductUpdated
from servicekit.contracts.fields import Money, Stock, Timestamp, UUIDText
from servicekit.timestamps import rfc3339

AboutProduct = TypeVar("AboutProduct", ProductCreated, ProductUpdated)


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
