"""At what price an order is accepted, and whether there is anything to sell."""

import time
from uuid import UUID

from django.conf import settings

from orders_project.orders import catalog, product_service
from orders_project.orders.catalog import CatalogProduct
from orders_project.orders.product_service import ProductServiceUnavailable
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


class Pricing:
    """Prices orders from what this process has read a moment ago, from Redis, or from the source.

    A changed price is sold at within `PRICE_MEMORY_SECONDS` of the change reaching Redis. A copy is
    good enough to accept by; only the source refuses.
    """

    def __init__(self) -> None:
        self._remembered: dict[UUID, tuple[float, CatalogProduct]] = {}

    def total_price(self, product_id: UUID, quantity: int) -> int:
        """Return the price of so many units at this moment.

        :raises ProductNotFound: if the product service does not have the product
        :raises InsufficientStock: if it says that there are fewer units
        :raises TotalPriceTooLarge: if the total is beyond 64 bits
        :raises PriceUnknown: if there is no telling
        """
        total = self._price(product_id, quantity) * quantity
        if total > MAX_INT64:
            raise TotalPriceTooLarge
        return total

    def _price(self, product_id: UUID, quantity: int) -> int:
        copy = self._copy(product_id)
        if copy is not None and copy.is_fresh and copy.qty >= quantity:
            return copy.price
        try:
            product = product_service.fetch_product(product_id)
        except ProductServiceUnavailable:
            if copy is None:
                raise PriceUnknown from None
            return copy.price
        self._remembered.pop(product_id, None)
        catalog.put(
            product_id=product_id,
            name=product.name,
            price=product.price,
            qty=product.qty,
            version=product.version,
        )
        if product.qty < quantity:
            raise InsufficientStock(quantity=quantity, available=product.qty)
        return product.price

    def _copy(self, product_id: UUID) -> CatalogProduct | None:
        now = time.monotonic()
        remembered = self._remembered.get(product_id)
        if remembered is not None and now - remembered[0] < settings.PRICE_MEMORY_SECONDS:
            return remembered[1]
        if remembered is not None:
            # Those who ask meanwhile are content with it: one look at Redis is enough.
            self._remembered[product_id] = (now, remembered[1])
        copy = catalog.get(product_id)
        if copy is None:
            # Not there, or Redis is away: what was known last is better than nothing, and is
            # compared with the source once it is older than a copy may be.
            return remembered[1] if remembered is not None else None
        if len(self._remembered) >= _REMEMBERED_PRODUCTS:
            self._remembered.clear()
        self._remembered[product_id] = (now, copy)
        return copy
