"""Which events the order service listens to, and what it does about them."""

from orders_project.orders import services
from servicekit.contracts.events import (
    ProductArchived,
    ProductCreated,
    ProductUpdated,
    StockDecided,
    StockReleased,
)
from servicekit.messaging.consumer import Subscription

SUBSCRIPTIONS = [
    Subscription("order_stock_queue", (StockDecided, StockReleased), services.settle_orders),
    Subscription(
        "order_product_queue",
        (ProductCreated, ProductUpdated, ProductArchived),
        services.refresh_catalog,
    ),
]
