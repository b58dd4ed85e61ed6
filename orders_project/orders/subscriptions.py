"""What the order service's worker consumes, and what it does about each."""

from collections.abc import Sequence

from orders_project.orders import services
from orders_project.orders.commands import PersistOrders
from servicekit.contracts.events import (
    ProductArchived,
    ProductCreated,
    ProductUpdated,
    StockDecided,
    StockReleased,
)
from servicekit.messaging.celery_protocol import TaskSource
from servicekit.messaging.consumer import Handled, Subscription
from servicekit.messaging.envelope import Received, event_message


def place_and_announce(batch: Sequence[Received[PersistOrders]]) -> Handled:
    """Store the orders of some messages in one transaction; answer with their announcements."""
    orders = [order for each in batch for order in each.event.orders]
    correlations = {str(order.id): order.correlation for order in orders}
    events = services.place_orders(orders)
    return Handled(
        [event_message(event, correlations[str(event.order_id)]) for event in events],
        on_unwanted=lambda messages: services.recheck_soon(
            [str(message.correlation_id) for message in messages]
        ),
    )


PERSIST_ORDERS = TaskSource(PersistOrders.queue, PersistOrders, place_and_announce)

SUBSCRIPTIONS = [
    Subscription("order_stock_queue", (StockDecided, StockReleased), services.settle_orders),
    Subscription(
        "order_product_queue",
        (ProductCreated, ProductUpdated, ProductArchived),
        services.refresh_catalog,
    ),
]

SOURCES = [PERSIST_ORDERS, *SUBSCRIPTIONS]
