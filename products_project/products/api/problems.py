"""How the product service's own errors are answered."""

from products_project.products.selectors import ProductIsArchived, ProductNotFound
from products_project.products.services import (
    IdempotencyKeyReused,
    StockBelowZero,
    StockTooLarge,
    VersionMismatch,
)
from servicekit.http.problems import Translation, exception_handler

TRANSLATIONS: dict[type[Exception], Translation] = {
    ProductNotFound: Translation(404, "product_not_found"),
    ProductIsArchived: Translation(404, "product_archived"),
    VersionMismatch: Translation(412, "version_mismatch"),
    StockBelowZero: Translation(
        409, "insufficient_stock", members=lambda error: {"available": error.available}
    ),
    StockTooLarge: Translation(409, "stock_too_large"),
    IdempotencyKeyReused: Translation(422, "idempotency_key_reused"),
}

handle = exception_handler(TRANSLATIONS)
