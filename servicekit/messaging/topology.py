"""Exchanges and queues, and who declares them.

Anyone may declare an exchange or `product_order_queue`: they have no arguments, so every client's
plain declaration fits. What an installation wants to say about its queues (type, limits, where the
broker puts what it gives up on) is said by policies and by the virtual host's default queue type.
A queue is declared by its consumer, together with the dead-letter queue for the
messages that it could not read or apply.
"""

from typing import Any

from kombu import Exchange, Queue

from servicekit.contracts import events
from servicekit.contracts.events import ORDER_EXCHANGE, PRODUCT_EXCHANGE

EXCHANGES = (
    Exchange(ORDER_EXCHANGE, type="topic", durable=True),
    Exchange(PRODUCT_EXCHANGE, type="topic", durable=True),
)

#: Where our own consumer of an event takes it from. Others may bind queues of theirs as well: that
#: one of them has an event does not say that ours has it.
CONSUMED_FROM = {
    events.OrderCreated.routing_key: "product_order_queue",
    events.OrderCancelled.routing_key: "product_cancellation_queue",
    events.StockDecided.routing_key: "order_stock_queue",
    events.StockReleased.routing_key: "order_stock_queue",
    events.ProductCreated.routing_key: "order_product_queue",
    events.ProductUpdated.routing_key: "order_product_queue",
    events.ProductArchived.routing_key: "order_product_queue",
}


def dead_letter_queue_name(queue: str) -> str:
    """Return the name of the queue where the dead letters of `queue` go."""
    return f"{queue}.dead"


def declare_exchanges(channel: Any) -> None:
    """Declare the exchanges of the system; again is harmless."""
    for exchange in EXCHANGES:
        exchange(channel).declare()


def declare_queue(channel: Any, name: str, *, exchange: str = "", keys: list[str]) -> None:
    """Declare a queue, its dead-letter queue and its bindings; again is harmless."""
    for queue in (dead_letter_queue_name(name), name):
        Queue(queue, durable=True)(channel).queue_declare()
    if keys:
        source = Exchange(exchange, type="topic", durable=True)(channel)
        source.declare()
        for key in keys:
            Queue(name)(channel).bind_to(source, routing_key=key)
