"""How old what is not finished is, for the page that says whether the system is well."""

import time
from contextlib import closing

from django.conf import settings
from django.db import connection

from orders_project.orders import cache
from orders_project.orders.models import RECHECK_AFTER_SECONDS, Order
from servicekit.backoffice.display import duration
from servicekit.caching.redis import UNAVAILABLE
from servicekit.overview.system import Row, State

PENDING, ACCEPTED = "Pending orders", "Orders to be stored"
# The watchdog does it after half of this.
_LATE_SECONDS = 2 * RECHECK_AFTER_SECONDS


def oldest_pending() -> Row:
    """Say how old the oldest order is that is not decided."""
    pending = Order.objects.filter(status=Order.Status.PENDING).order_by("created_at", "id")
    with closing(connection):
        oldest = pending.values_list("created_at", flat=True).first()
    return _row(
        PENDING,
        oldest.timestamp() if oldest else None,
        "See the product service's worker and queues. Orders are announced again by themselves;"
        " “Announce again” on an order does so at once.",
        "orders/order/?status__exact=PENDING",
    )


def oldest_accepted() -> Row:
    """Say how old the oldest order is that is accepted and not stored.

    :raises ConnectionError: if Redis, which knows, does not answer
    """
    oldest = cache.oldest_accepted_at()
    if oldest is UNAVAILABLE:
        raise ConnectionError
    return _row(ACCEPTED, oldest, "See PostgreSQL, RabbitMQ and the worker. None is lost.")


def _row(what: str, since: float | None, advice: str, page: str = "") -> Row:
    age = 0 if since is None else time.time() - since
    figure = "none" if since is None else f"oldest {duration(age)} old"
    state: State = "degraded" if age > _LATE_SECONDS else "well"
    return Row(settings.SERVICE_NAME, what, state, figure, advice, page)
