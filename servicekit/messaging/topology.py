"""Exchanges and queues, and who declares them.

Anyone may declare an exchange: it has no arguments, so every client's plain declaration fits. A
queue is declared by its consumer alone, together with the dead-letter queue where the messages
are parked that it could not read or apply.
"""

from dataclasses import dataclass
from typing import Any

from kombu import Exchange, Queue

from servicekit.contracts.events import ORDER_EXCHANGE, PRODUCT_EXCHANGE

EXCHANGES = (
    Exchange(ORDER_EXCHANGE, type="topic", durable=True),
    Exchange(PRODUCT_EXCHANGE, type="topic", durable=True),
)


def dead_letter_queue_name(queue: str) -> str:
    """Return the name of the queue where the poison of `queue` is parked."""
    return f"{queue}.dead"


@dataclass(frozen=True, kw_only=True)
class Topology:
    """How this installation's queues are made: `queue_type` is `quorum` or `classic`."""

    queue_type: str

    def queue(self, name: str, **options: Any) -> Queue:
        """Return a durable queue whose rejected messages are parked, not dropped."""
        return Queue(
            name,
            durable=True,
            queue_arguments={
                "x-queue-type": self.queue_type,
                # The default exchange routes by queue name, so there is no third thing to declare.
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": dead_letter_queue_name(name),
            },
            **options,
        )

    def dead_letter_queue(self, name: str) -> Queue:
        """Return the queue in which the poison of the queue `name` is kept."""
        return Queue(
            dead_letter_queue_name(name),
            durable=True,
            queue_arguments={"x-queue-type": self.queue_type},
        )

    def declare(self, channel: Any, name: str, exchange: str, routing_keys: list[str]) -> None:
        """Declare an event queue, its dead-letter queue and its bindings; again is harmless."""
        source = Exchange(exchange, type="topic", durable=True)(channel)
        source.declare()
        self.dead_letter_queue(name)(channel).declare()
        queue = self.queue(name)(channel)
        queue.queue_declare()
        for routing_key in routing_keys:
            queue.bind_to(source, routing_key=routing_key)
