"""A product as the outside sees it, in answers, caches and events."""

from typing import TypeVar

import msgspec

from products_project.products.models import Product
from servicekit.contracts.events import ProductCreated, ProductUpdated
from servicekit.timestamps import rfc3339

AboutProduct = TypeVar("AboutProduct", ProductCreated, ProductUpdated)


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
