"""Writing products: what people change about them, their stock included."""

import time
from collections.abc import Collection, Mapping
from types import EllipsisType
from uuid import UUID

from django.db import IntegrityError, transaction

from products_project.products import cache
from products_project.products.models import Product, StockMovement
from products_project.products.representation import announce
from products_project.products.selectors import ProductIsArchived, ProductNotFound
from servicekit.contracts.events import ProductArchived, ProductCreated, ProductUpdated
from servicekit.contracts.fields import MAX_INT32
from servicekit.outbox import recording
from servicekit.timestamps import now_in_milliseconds


class VersionMismatch(Exception):
    """The product has changed since the caller has read it."""

    def __init__(self, product: Product) -> None:
        super().__init__(f"The product has changed: it is at version {product.version} now.")


class StockBelowZero(Exception):
    """A movement would take more units than there are."""

    def __init__(self, *, delta: int, available: int) -> None:
        super().__init__(f"To be taken: {-delta}, in stock: {available}.")
        self.available = available


class StockTooLarge(Exception):
    """A movement would make the stock larger than a product may have."""

    def __init__(self) -> None:
        super().__init__(f"The stock cannot be raised beyond {MAX_INT32}.")


class IdempotencyKeyReused(Exception):
    """The key was used before, for something else."""

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used before, for another stock movement.")


def create_product(*, name: str, price: int, qty: int, low_stock: int | None = None) -> Product:
    """Store a product with its price, the movement that explains its first stock, and the event.

    All of it commits together; the cache is written afterwards.
    """
    started_at = time.time()
    with transaction.atomic(durable=True):
        product = Product.objects.create(name=name, price=price, qty=qty, low_stock=low_stock)
        product.prices.create(price=price, since=product.created_at)
        if qty:
            product.movements.create(delta=qty, qty_after=qty, reason=StockMovement.Reason.INITIAL)
        recording.record_all([announce(ProductCreated, product)])
    cache.store([product], read_at=started_at)
    return product


def update_product(
    product_id: UUID,
    *,
    name: str | EllipsisType = ...,
    price: int | EllipsisType = ...,
    low_stock: int | EllipsisType | None = ...,
    if_version: Collection[str] | None = None,
    if_still: Mapping[str, object] | None = None,
) -> Product:
    """Change what is not left out, and announce the new state in the same transaction.

    With `if_version`, only if its version is one of these; with `if_still`, only if its fields
    have these values, for who may not be stopped by a sale. What is so already is no change.

    :raises ProductNotFound: if there is none
    :raises ProductIsArchived: if it is not sold any more
    :raises VersionMismatch: if it has another version, or other values
    """
    started_at = time.time()
    with transaction.atomic(durable=True):
        product = _lock_sold(product_id, if_version)
        if any(getattr(product, field) != value for field, value in (if_still or {}).items()):
            raise VersionMismatch(product)
        given = {"name": name, "price": price, "low_stock": low_stock}
        changes = {
            field: value
            for field, value in given.items()
            if value is not ... and value != getattr(product, field)
        }
        if changes:
            for field, value in changes.items():
                setattr(product, field, value)
            product.version += 1
            product.save(update_fields=[*changes, "version"])
            if "price" in changes:
                product.prices.create(price=product.price)
            recording.record_all([announce(ProductUpdated, product)])
    cache.store([product], read_at=started_at)
    return product


def archive_product(product_id: UUID, *, if_version: Collection[str] | None = None) -> None:
    """Stop selling a product, and announce it. Its history stays. Twice is as good as once.

    :raises ProductNotFound: if there is none
    :raises VersionMismatch: if `if_version` is given and it has another version
    """
    started_at = time.time()
    with transaction.atomic(durable=True):
        try:
            product = _lock_sold(product_id, if_version)
        except ProductIsArchived:
            return
        product.archived_at = now_in_milliseconds()
        product.version += 1
        product.save(update_fields=["archived_at", "version"])
        recording.record_all([announce(ProductArchived, product)])
    cache.store([product], read_at=started_at)


def restore_product(product_id: UUID) -> Product:
    """Sell an archived product again, and announce it. Twice is as good as once.

    Its event is `product.updated`, from whose state as a whole the forgetful learn it anew.

    :raises ProductNotFound: if there is none
    """
    started_at = time.time()
    with transaction.atomic(durable=True):
        product = Product.objects.lock([product_id]).get(product_id)
        if product is None:
            raise ProductNotFound(product_id)
        if product.archived_at is not None:
            product.archived_at = None
            product.version += 1
            product.save(update_fields=["archived_at", "version"])
            recording.record_all([announce(ProductUpdated, product)])
    cache.store([product], read_at=started_at)
    return product


def move_stock(
    *, product_id: UUID, delta: int, reason: str, idempotency_key: str = ""
) -> StockMovement:
    """Add units to a product's stock, or take some, and announce the new state; all or nothing.

    With an `idempotency_key` it is done once: asked again, the first movement is returned.

    :raises ProductNotFound: if there is no such product
    :raises ProductIsArchived: if it is not sold any more
    :raises StockBelowZero: if there are fewer units than are to be taken
    :raises StockTooLarge: if there would be more than a product may have
    :raises IdempotencyKeyReused: if the key belongs to another movement
    """
    started_at = time.time()
    try:
        with transaction.atomic(durable=True):
            # The lock makes those with the same key wait here for the first of them.
            product = Product.objects.lock([product_id]).get(product_id)
            known = _movement_of(idempotency_key)
            if known is not None:
                if (known.product_id, known.delta, known.reason) != (product_id, delta, reason):
                    raise IdempotencyKeyReused
                return known
            product = _sold(product, product_id, None)
            if product.qty + delta < 0:
                raise StockBelowZero(delta=delta, available=product.qty)
            # Cancelled orders may have given back more: it can still be taken.
            if delta > 0 and product.qty + delta > MAX_INT32:
                raise StockTooLarge
            product.qty += delta
            product.version += 1
            Product.objects.write_stock([product])
            movement = product.movements.create(
                delta=delta,
                qty_after=product.qty,
                reason=reason,
                idempotency_key=idempotency_key,
            )
            recording.record_all([announce(ProductUpdated, product)])
    except IntegrityError as error:
        # The same key for two products at the same moment: no lock of a product keeps those apart.
        if "stock_movement_once_per_idempotency_key" in str(error):
            raise IdempotencyKeyReused from error
        raise
    cache.store([product], read_at=started_at)
    return movement


def _movement_of(idempotency_key: str) -> StockMovement | None:
    if not idempotency_key:
        return None
    return StockMovement.objects.filter(idempotency_key=idempotency_key).first()


def _lock_sold(product_id: UUID, if_version: Collection[str] | None) -> Product:
    return _sold(Product.objects.lock([product_id]).get(product_id), product_id, if_version)


def _sold(product: Product | None, product_id: UUID, if_version: Collection[str] | None) -> Product:
    if product is None:
        raise ProductNotFound(product_id)
    if product.archived_at is not None:
        raise ProductIsArchived(product_id)
    if if_version is not None and str(product.version) not in if_version:
        raise VersionMismatch(product)
    return product
