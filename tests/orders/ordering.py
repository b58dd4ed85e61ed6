"""Orders as tests make them: accepted already, or asked for over HTTP."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.test import Client

from orders_project.orders.commands import AcceptedOrder, PersistOrders
from servicekit.identifiers import new_id
from servicekit.messaging.celery_protocol import task_message
from servicekit.messaging.envelope import OutgoingMessage
from servicekit.timestamps import now_in_milliseconds


def an_order(**facts: Any) -> AcceptedOrder:
    return AcceptedOrder(**{
        "id": new_id(), "product_id": new_id(), "quantity": 2, "total_price": 380_000,
        "created_at": now_in_milliseconds(), **facts,
    })  # fmt: skip


def a_task(orders: Sequence[AcceptedOrder]) -> OutgoingMessage:
    """A message as a web process hands orders over to the worker."""
    return task_message(
        task=PersistOrders.task_name, queue=PersistOrders.queue, task_id=new_id(),
        kwargs=PersistOrders(orders=orders),
    )  # fmt: skip


def place(client: Client, product_id: UUID, quantity: int = 2, **headers: str) -> Any:
    return client.post(
        "/orders", {"productId": str(product_id), "quantity": quantity},
        content_type="application/json", headers=headers,
    )  # fmt: skip
