"""The tasks of the orders worker."""

from typing import Any

from celery import Celery

from celery_workers.batches import Batches
from celery_workers.orders.celery import app
from orders_project.orders import services
from orders_project.orders.commands import PersistOrders
from orders_project.orders.subscriptions import PERSIST_ORDERS


def in_batches(_task: Any, _app: Celery, consumer: Any) -> Batches:
    """Return the strategy of the task, for one connection of the worker."""
    return Batches(PERSIST_ORDERS, consumer)


@app.task(name=PersistOrders.task_name, Strategy=f"{__name__}:in_batches")
def persist_orders(**payload: Any) -> None:
    """Store the orders that one web process accepted together.

    The worker runs many of these tasks as one (`in_batches`). Called directly, it runs by itself,
    and the watchdog announces the orders.
    """
    services.place_orders(PersistOrders.parse(payload).orders)
