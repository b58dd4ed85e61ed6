"""How the order service's own errors are answered."""

from orders_project.orders.placement.intake import (
    AcceptanceUnknown,
    IdempotencyKeyReused,
    UnableToAccept,
)
from orders_project.orders.placement.pricing import InsufficientStock, TotalPriceTooLarge
from orders_project.orders.product_service import ProductNotFound
from orders_project.orders.selectors import OrderNotFound, OrderNotVisibleYet
from orders_project.orders.services import OrderIsRejected
from servicekit.http.problems import RETRY_AFTER_SECONDS, Translation, exception_handler

TRANSLATIONS: dict[type[Exception], Translation] = {
    ProductNotFound: Translation(404, "product_not_found"),
    OrderNotFound: Translation(404, "order_not_found"),
    InsufficientStock: Translation(
        400, "insufficient_stock", members=lambda error: {"available": error.available}
    ),
    TotalPriceTooLarge: Translation(400, "total_price_too_large"),
    IdempotencyKeyReused: Translation(422, "idempotency_key_reused"),
    OrderIsRejected: Translation(409, "order_rejected"),
    UnableToAccept: Translation(503, "not_accepted", RETRY_AFTER_SECONDS),
    AcceptanceUnknown: Translation(
        503,
        "outcome_unknown",
        RETRY_AFTER_SECONDS,
        members=lambda error: {"orderId": str(error.order_id)},
    ),
    OrderNotVisibleYet: Translation(503, "order_not_visible_yet", RETRY_AFTER_SECONDS),
}

handle = exception_handler(TRANSLATIONS)
