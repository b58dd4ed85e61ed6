"""What the web process asks the orders worker to do: a Celery task, private to this service."""

from collections.abc import Sequence
from datetime import MAXYEAR, MINYEAR, datetime
from typing import Annotated, Any, ClassVar, Self
from uuid import UUID

import msgspec

from servicekit.contracts.events import MalformedMessage
from servicekit.contracts.fields import Money, Quantity
from servicekit.correlation import Correlation

NAME_MAX_LENGTH = 255
"""Of a product's name, in characters."""


class AcceptedOrder(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An order that a client was promised, or is about to be: its id and price are settled."""

    id: UUID
    product_id: UUID
    quantity: Quantity
    total_price: Money
    product_name: Annotated[str, msgspec.Meta(max_length=NAME_MAX_LENGTH)] = ""
    """What the product was called then; empty where that is not known."""
    created_at: Annotated[datetime, msgspec.Meta(tz=True)]
    # Of the request that it was accepted by; what is told about the order carries them on.
    request_id: str | None = None
    traceparent: str | None = None

    def __post_init__(self) -> None:
        # What is outside in UTC PostgreSQL would keep, but nobody could read it back, nor any list
        # with it. Such a time comes from a stranger.
        if not MINYEAR < self.created_at.year < MAXYEAR:
            raise ValueError("createdAt is out of range")

    @property
    def correlation(self) -> Correlation | None:
        """The request that it was accepted by, as far as it is known."""
        return Correlation.of(self.request_id, self.traceparent)


class PersistOrders(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Store these orders. Asked twice, they are stored once."""

    task_name: ClassVar[str] = "orders.persist_orders"
    queue: ClassVar[str] = "orders.persist"

    orders: list[AcceptedOrder]

    @property
    def parts(self) -> Sequence[AcceptedOrder]:
        """The orders."""
        return self.orders

    @classmethod
    def parse(cls, payload: dict[str, Any]) -> Self:
        """Read the keyword arguments of the Celery task.

        :raises MalformedMessage: if the contract does not allow them
        """
        try:
            return msgspec.convert(payload, cls)
        except msgspec.ValidationError as error:
            raise MalformedMessage(f"{cls.task_name}: {error}") from error
