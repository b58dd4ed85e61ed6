"""The tasks of the orders worker."""

from collections.abc import Sequence
from typing import Any

from celery import Celery

from celery_workers.batches import Batches, TaskSource
from celery_workers.orders.celery import app
from orders_project.orders import services
from orders_project.orders.commands import PersistOrders
from servicekit.messaging.consumer import Handled
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


def in_batches(_task: Any, _app: Celery, consumer: Any) -> Batches:
    """Return the strategy of the task, for one connection of the worker."""
    source = TaskSource(
        PersistOrders.queue, PersistOrders.task_name, PersistOrders.parse, place_and_announce
    )
    return Batches(source, consumer)


@app.task(name=PersistOrders.task_name, Strategy=f"{__name__}:in_batches")
def persist_orders(**payload: Any) -> None:
    """Store the orders that one web process accepted together.

    The worker runs many of these tasks as one (`in_batches`). Called directly, it runs by itself,
    and the watchdog announces the orders.
    """
    services.place_orders(PersistOrders.parse(payload).orders)
