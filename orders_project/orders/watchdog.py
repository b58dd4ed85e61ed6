"""What looks after orders that something went wrong with; it runs in the orders worker."""

import logging
from collections.abc import Sequence
from functools import partial

from django.conf import settings

from orders_project.orders import cache, services
from orders_project.orders.models import OrderFigures
from servicekit.database import figures
from servicekit.database.loop import Loop
from servicekit.messaging.publisher import ConfirmingPublisher

logger = logging.getLogger(__name__)

# Later than any request that wrote the copy can still be waiting for the broker.
_COPY_AGE_SECONDS = 30


def loops() -> Sequence[Loop]:
    """Return the threads of the watchdog. Several of each may run side by side."""
    publisher = ConfirmingPublisher(settings.BROKER_URL)
    return [
        Loop("overdue orders", partial(services.announce_overdue_orders, publisher)),
        Loop("accepted copies", place_forgotten_orders, every_seconds=5),
        Loop("order figures", partial(figures.merge, OrderFigures), every_seconds=5),
    ]


def place_forgotten_orders(*, limit: int = 500) -> int:
    """Store accepted orders whose message was lost, or never sent; return how many.

    A copy in Redis outlives a queue that is purged or deleted with an order inside, and a web
    process that dies between writing it and the broker's confirm. Storing an order that is stored
    changes nothing and drops the copy.
    """
    orders = cache.accepted_longer_than(_COPY_AGE_SECONDS, limit=limit)
    if orders:
        services.place_orders(orders, recheck_after_seconds=0)
        logger.warning("stored %d orders from their accepted copies", len(orders))
    return len(orders)
