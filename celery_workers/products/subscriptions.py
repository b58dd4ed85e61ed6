"""Which events the product service listens to, and what it does about them."""

from products_project.products import services
from servicekit.contracts.events import OrderCreated
from servicekit.messaging.consumer import Subscription

SUBSCRIPTIONS = [
    Subscription("product_order_queue", (OrderCreated,), services.reserve_stock),
]
