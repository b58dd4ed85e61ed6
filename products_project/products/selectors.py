"""Reading products."""

import time
from uuid import UUID

from django.db.models import QuerySet

from products_project.products import cache
from products_project.products.models import Product, StockMovement
from products_project.products.versioned_cache import Versioned
from servicekit.failpoints import failpoint


class ProductNotFound(Exception):
    """There is no product with this id."""

    def __init__(self, product_id: object) -> None:
        super().__init__(f"There is no product {product_id}.")


class ProductIsArchived(Exception):
    """The product is not sold any more."""

    def __init__(self, product_id: object) -> None:
        super().__init__(f"The product {product_id} is archived.")


def get_rendered_product(product_id: UUID, *, past_cache: bool = False) -> Versioned:
    """Return a product as it is answered, from Redis when it is there and not to be passed by.

    :raises ProductNotFound: if there is none
    :raises ProductIsArchived: if it is not sold any more
    """
    cached = None if past_cache else cache.get(product_id)
    if cached is not None:
        return cached
    read_at = time.time()
    product = _find(product_id)
    failpoint("products.fill.before_cache")
    # Also one that is archived, which takes it out.
    cache.store([product], read_at=read_at)
    return cache.rendered(_sold(product))


def get_product(product_id: UUID) -> Product:
    """Return a product that is sold, from the database.

    :raises ProductNotFound: if there is none
    :raises ProductIsArchived: if it is not sold any more
    """
    return _sold(_find(product_id))


def _find(product_id: UUID) -> Product:
    try:
        return Product.objects.get(id=product_id)
    except Product.DoesNotExist:
        raise ProductNotFound(product_id) from None


def _sold(product: Product) -> Product:
    if product.archived_at is not None:
        raise ProductIsArchived(product.id)
    return product


def sold_products(*, search: str) -> QuerySet[Product]:
    """Return the products that are sold and have a text in their name."""
    products = Product.objects.filter(archived_at=None)
    return products.filter(name__icontains=search) if search else products


def stock_movements(product_id: UUID) -> QuerySet[StockMovement]:
    """Return the movements of a product's stock; those of an archived product are there, too.

    :raises ProductNotFound: if there is no such product
    """
    _find(product_id)
    return StockMovement.objects.filter(product_id=product_id)
