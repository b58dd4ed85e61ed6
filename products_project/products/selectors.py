"""Reading products."""

import time
from dataclasses import dataclass
from uuid import UUID

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


@dataclass(frozen=True)
class Page:
    """Products, newest first, and whether older ones follow."""

    products: list[Product]
    has_more: bool


@dataclass(frozen=True)
class MovementsPage:
    """Movements of a stock, newest first, and whether older ones follow."""

    movements: list[StockMovement]
    has_more: bool


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


def products_page(*, limit: int, after: UUID | None, search: str) -> Page:
    """Return at most `limit` products that are sold, newest first, older than the one `after`."""
    products = Product.objects.filter(archived_at=None).order_by("-id")
    if after is not None:
        products = products.filter(id__lt=after)
    if search:
        products = products.filter(name__icontains=search)
    # One more than asked for, to know whether it is worth asking again.
    found = list(products[: limit + 1])
    return Page(found[:limit], len(found) > limit)


def stock_movements_page(*, product_id: UUID, limit: int, after: int | None) -> MovementsPage:
    """Return at most `limit` movements of a product's stock, older than the movement `after`.

    Those of an archived product are there, too.

    :raises ProductNotFound: if there is no such product
    """
    movements = StockMovement.objects.filter(product_id=product_id).order_by("-id")
    if after is not None:
        movements = movements.filter(id__lt=after)
    found = list(movements[: limit + 1])
    if not found and not Product.objects.filter(id=product_id).exists():
        raise ProductNotFound(product_id)
    return MovementsPage(found[:limit], len(found) > limit)
