"""What the product service's worker consumes, and what it does about each."""

from products_project.products import reservations
from servicekit.contracts.events import OrderCancelled, OrderCreated
from servicekit.messaging.consumer import Subscription

SOURCES = SUBSCRIPTIONS = [
    Subscription("product_order_queue", (OrderCreated,), reservations.reserve_stock),
    Subscription("product_cancellation_queue", (OrderCancelled,), reservations.release_stock),
]
