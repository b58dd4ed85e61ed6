"""At what price an order is accepted, and whether there is anything to sell."""

import time
from typing import NamedTuple
from uuid import UUID

from django.conf import settings

from orders_project.orders import catalog, product_service
from orders_project.orders.catalog import CatalogProduct
from orders_project.orders.product_service import ProductServiceUnavailable
from servicekit.caching.redis import UNAVAILABLE
from servicekit.contracts.fields import MAX_INT64

_REMEMBERED_PRODUCTS = 10_000


class InsufficientStock(Exception):
    """There are fewer units than ordered."""

    def __init__(self, *, quantity: int, available: int) -> None:
        super().__init__(f"Ordered: {quantity}, in stock: {available}.")
        self.available = available


class TotalPriceTooLarge(Exception):
    """Price times quantity is more than can be stored."""

    def __init__(self) -> None:
        super().__init__("Price times quantity is too large.")


class PriceUnknown(Exception):
    """The product can be looked up nowhere now."""

    def __init__(self) -> None:
        super().__init__("the product cannot be looked up now.")


class Offer(NamedTuple):
    """What an order is accepted at."""

    total_price: int
    product_name: str


class _Remembered:
    """A copy of a product that this process has read, and what it has sold of it since."""

    __slots__ = ("copy", "left", "read_at")

    def __init__(self, copy: CatalogProduct, read_at: float) -> None:
        self.copy = copy
        self.left = copy.qty
        self.read_at = read_at


class Pricing:
    """Prices orders from what this process has read a moment ago, from Redis, or from the source.

    A changed price is sold at within `PRICE_MEMORY_SECONDS` of the change reaching Redis. Whatever
    fails, no price is older than `PRICE_MAX_AGE_SECONDS`, or while the source does not answer
    `PRICE_MAX_AGE_WITHOUT_SOURCE_SECONDS`. A copy is good enough to accept by; only the source
    refuses.
    """

    def __init__(self) -> None:
        self._remembered: dict[UUID, _Remembered] = {}
        self._memory_seconds: float = settings.PRICE_MEMORY_SECONDS
        self._max_age: float = settings.PRICE_MAX_AGE_SECONDS
        self._max_age_without_source: float = settings.PRICE_MAX_AGE_WITHOUT_SOURCE_SECONDS

    def offer(self, product_id: UUID, quantity: int) -> Offer:
        """Return what so many units are sold at, and as, at this moment.

        :raises ProductNotFound: if the product service does not have the product
        :raises InsufficientStock: if it says that there are fewer units
        :raises TotalPriceTooLarge: if the total is beyond 64 bits
        :raises PriceUnknown: if there is no telling
        """
        product = self._product(product_id, quantity)
        total = product.price * quantity
        if total > MAX_INT64:
            raise TotalPriceTooLarge
        return Offer(total, product.name)

    def _product(self, product_id: UUID, quantity: int) -> CatalogProduct:
        known = self._look_up(product_id)
        if known is not None and known.copy.is_within(self._max_age) and known.left >= quantity:
            known.left -= quantity
            return known.copy
        try:
            product = product_service.fetch_product(product_id)
        except ProductServiceUnavailable:
            if known is None or not known.copy.is_within(self._max_age_without_source):
                raise PriceUnknown from None
            return known.copy
        catalog.put(
            product_id=product_id,
            name=product.name,
            price=product.price,
            qty=product.qty,
            version=product.version,
            as_of=product.as_of,
        )
        # As it would be read back from Redis, which may be away.
        copy = CatalogProduct(
            id=product_id,
            name=product.name,
            price=product.price,
            qty=product.qty,
            version=product.version,
            as_of=product.as_of,
        )
        asked = self._remember(product_id, copy, time.monotonic())
        if product.qty < quantity:
            raise InsufficientStock(quantity=quantity, available=product.qty)
        asked.left -= quantity
        return copy

    def _look_up(self, product_id: UUID) -> _Remembered | None:
        now = time.monotonic()
        known = self._remembered.get(product_id)
        if known is not None:
            if now - known.read_at < self._memory_seconds:
                return known
            # Those who ask meanwhile are content with it: one look at Redis is enough.
            known.read_at = now
        copy = catalog.get(product_id)
        if copy is UNAVAILABLE:
            # What was known last is as good, until it is too old.
            return known
        if copy is None:
            self._remembered.pop(product_id, None)
            return None
        return self._remember(product_id, copy, now)

    def _remember(self, product_id: UUID, copy: CatalogProduct, read_at: float) -> _Remembered:
        if len(self._remembered) >= _REMEMBERED_PRODUCTS:
            self._remembered.clear()
        self._remembered[product_id] = remembered = _Remembered(copy, read_at)
        return remembered
