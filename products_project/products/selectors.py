"""Reading products."""

from dataclasses import dataclass
from uuid import UUID

from products_project.products import cache
from products_project.products.models import Product
from servicekit.caching.versioned import Versioned
from servicekit.failpoints import failpoint


class ProductNotFound(Exception):
    """There is no product with this id."""

    def __init__(self, product_id: object) -> None:
        super().__init__(f"There is no product {product_id}.")


@dataclass(frozen=True)
class Page:
    """Products, newest first, and whether older ones follow."""

    products: list[Product]
    has_more: bool


def get_rendered_product(product_id: UUID) -> Versioned:
    """Return a product as it is answered, from Redis when it is there.

    :raises ProductNotFound: if there is none
    """
    cached = cache.get(product_id)
    if cached is not None:
        return cached
    product = get_product(product_id)
    failpoint("products.fill.before_cache")
    cache.store([product])
    return cache.rendered(product)


def get_product(product_id: UUID) -> Product:
    """Return a product from the database.

    :raises ProductNotFound: if there is none
    """
    try:
        return Product.objects.get(id=product_id)
    except Product.DoesNotExist:
        raise ProductNotFound(product_id) from None


def products_page(*, limit: int, after: UUID | None, search: str) -> Page:
    """Return at most `limit` products, newest first, older than the one with the id `after`."""
    products = Product.objects.order_by("-id")
    if after is not None:
        products = products.filter(id__lt=after)
    if search:
        products = products.filter(name__icontains=search)
    # One more than asked for, to know whether it is worth asking again.
    found = list(products[: limit + 1])
    return Page(found[:limit], len(found) > limit)
