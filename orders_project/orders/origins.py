"""Which requests accepted orders come from."""

from collections.abc import Iterable
from contextlib import AbstractContextManager

from servicekit import origin
from servicekit.contracts.commands import AcceptedOrder
from servicekit.origin import Origin


def of_orders(orders: Iterable[AcceptedOrder]) -> AbstractContextManager[None]:
    """Have what is recorded about each of the orders go on under the ids of its request."""
    sources = {str(order.id): origin_of(order) for order in orders}
    return origin.of_messages({key: source for key, source in sources.items() if source})


def log_fields(order: AcceptedOrder) -> dict[str, str]:
    """Return what a log line about one order says of it."""
    source = origin_of(order)
    return {**(source.log_fields if source else {}), "order_id": str(order.id)}


def origin_of(order: AcceptedOrder) -> Origin | None:
    """Return the request that an order was accepted by, as far as it is known."""
    return Origin.of(order.request_id, order.traceparent)
