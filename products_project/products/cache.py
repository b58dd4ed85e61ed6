"""`product:{id}` in Redis: the body of `GET /products/{id}`, never an older one over a newer."""

from collections.abc import Iterable
from uuid import UUID

import msgspec

from products_project.products.models import Product
from products_project.products.representation import ProductDetail
from products_project.products.versioned_cache import Versioned, VersionedCache

# What a write that Redis missed can cost: an answer this old.
TTL_SECONDS = 300

_products = VersionedCache("product", ttl_seconds=TTL_SECONDS)


def get(product_id: UUID) -> Versioned | None:
    """Return the rendered product and its version, if it is cached."""
    return _products.get(product_id)


def peek(product_id: UUID) -> Versioned | None:
    """Do the same for somebody who asks again if it is not cached: that is one miss, not two."""
    return _products.peek(product_id)


def store(products: Iterable[Product], *, read_at: float) -> None:
    """Cache committed states of products; a state that is not the newest known is dropped.

    `read_at` is a Unix time from before they were read or, by who changed them, committed. What is
    archived is taken out of the cache.
    """
    _products.set_if_newer(
        ((product.id, rendered(product)) for product in products), read_at=read_at
    )


def rendered(product: Product) -> Versioned:
    """Return a product as it is answered and cached: one that is not sold, not at all."""
    if product.archived_at is not None:
        return Versioned(product.version, b"")
    return Versioned(product.version, msgspec.json.encode(ProductDetail.of(product)))
