"""Asking for stock as the consumer does, and reading what it would answer."""

from collections.abc import Sequence
from typing import Any

import msgspec

from products_project.products import reservations
from servicekit.contracts.events import OrderCancelled, OrderCreated
from servicekit.messaging.consumer import Handled
from servicekit.messaging.envelope import Received


def as_ours(
    event: OrderCreated | OrderCancelled, *envelope: Any
) -> Received[OrderCreated | OrderCancelled]:
    """Receive an event as the order service publishes it."""
    return Received(event, *envelope)._replace(message_id=event.message_id)


def reserve(orders: Sequence[OrderCreated]) -> Handled:
    """Decide the orders of one batch."""
    return reservations.reserve_stock([as_ours(order) for order in orders])


def release(cancellations: Sequence[OrderCancelled]) -> Handled:
    """Take back what the orders of one batch got."""
    return reservations.release_stock([as_ours(cancelled) for cancelled in cancellations])


def told(*batches: Handled) -> list[tuple[str, object, int]]:
    """What the answers say, one by one: outcome, order id, stock left."""
    said = []
    for answer in (answer for handled in batches for answer in handled.answers):
        body = msgspec.json.decode(answer.body)
        if answer.routing_key == "stock.decided":
            said += [(d["outcome"], d["orderId"], d["remaining"]) for d in body["decisions"]]
        else:
            said.append((answer.routing_key, body["orderId"], body["remaining"]))
    return said
