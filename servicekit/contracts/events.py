"""The events of the system.

Each is published on its `exchange` with its `routing_key`. It is never changed, only added to: a
breaking change is a new routing key beside the old one.
"""

from datetime import UTC, datetime
from typing import ClassVar, Self
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec

from servicekit.contracts.fields import Money, OrderReference, Quantity, Stock, Version

ORDER_EXCHANGE = "order.exchange"
PRODUCT_EXCHANGE = "product.exchange"

# The year 9999, the last that RFC 3339 can write.
_END_OF_TIME_MS = 253_370_764_800_000

_EVENT_IDS = uuid5(NAMESPACE_URL, "urn:products-and-orders:events")


class MalformedMessage(Exception):
    """The body is not what the contract of its routing key says."""


class Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Something that has happened."""

    exchange: ClassVar[str]
    routing_key: ClassVar[str]

    @property
    def subject(self) -> str:
        """What the event is about, and what tells it apart from others of its routing key."""
        raise NotImplementedError

    @property
    def correlation_id(self) -> str:
        """The id that everything about one order, or else one product, has in common."""
        raise NotImplementedError

    @property
    def event_id(self) -> UUID:
        """The same for the same fact, however often it is announced."""
        return uuid5(_EVENT_IDS, f"{self.routing_key}:{self.subject}")

    def published(self, at_ms: int) -> Self:  # noqa: ARG002 - for events that want to know
        """Return this event, as it was handed to the broker at a Unix time in milliseconds."""
        return self

    def to_json(self) -> bytes:
        """Return the body as it is published."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Read a body, ours or that of any other producer.

        :raises MalformedMessage: if the contract does not allow it
        """
        try:
            return msgspec.json.decode(body, type=cls)
        # Whatever a stranger's bytes do to the parser (bad UTF-8, nesting 100,000 deep) is
        # said of the message, not of us.
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedMessage(f"{cls.routing_key}: {error}") from error


class _AboutOrder(Event, frozen=True, kw_only=True):
    order_id: OrderReference
    product_id: UUID
    quantity: Quantity

    @property
    def subject(self) -> str:
        return str(self.order_id)

    @property
    def correlation_id(self) -> str:
        return str(self.order_id)


class OrderCreated(_AboutOrder, frozen=True, kw_only=True):
    """An order is stored and waits for its stock."""

    exchange: ClassVar[str] = ORDER_EXCHANGE
    routing_key: ClassVar[str] = "order.created"

    # Ours always have both. Not needed to reserve stock, so others may leave them out.
    total_price: Money | None = None
    created_at: str | None = None
    # Known to the consumer of a published event only: the relay says it beside the body.
    announced_at: str | None = None

    def published(self, at_ms: int) -> Self:
        """Return the event with the time at which it was handed to the broker."""
        if not 0 < at_ms < _END_OF_TIME_MS:
            return self
        moment = datetime.fromtimestamp(at_ms / 1000, tz=UTC).replace(tzinfo=None)
        return msgspec.structs.replace(
            self, announced_at=moment.isoformat(timespec="milliseconds") + "Z"
        )


class OrderCancelled(_AboutOrder, frozen=True, kw_only=True):
    """An order is not wanted any more; what was reserved for it goes back into stock."""

    exchange: ClassVar[str] = ORDER_EXCHANGE
    routing_key: ClassVar[str] = "order.cancelled"

    cancelled_at: str | None = None


class _AboutStock(_AboutOrder, frozen=True, kw_only=True):
    exchange: ClassVar[str] = PRODUCT_EXCHANGE

    remaining: Stock
    version: Version


class _StockDecision(_AboutStock, frozen=True, kw_only=True):
    # When the order reached the broker, and when its stock was decided: for its timeline.
    announced_at: str | None = None
    decided_at: str | None = None


class StockReserved(_StockDecision, frozen=True, kw_only=True):
    """The stock of an order has been taken; `remaining` units of the product are left."""

    routing_key: ClassVar[str] = "stock.reserved"


class StockRejected(_StockDecision, frozen=True, kw_only=True):
    """An order cannot have its stock, for `reason`; `remaining` units of the product are left."""

    routing_key: ClassVar[str] = "stock.rejected"

    reason: str


class StockReleased(_AboutStock, frozen=True, kw_only=True):
    """The stock of a cancelled order was given back; `remaining` units are there now."""

    routing_key: ClassVar[str] = "stock.released"

    released_at: str | None = None


class _AboutProduct(Event, frozen=True, kw_only=True):
    id: UUID
    name: str
    price: Money
    qty: Stock
    created_at: str
    version: Version

    @property
    def subject(self) -> str:
        return f"{self.id}:{self.version}"

    @property
    def correlation_id(self) -> str:
        return str(self.id)


class ProductCreated(_AboutProduct, frozen=True, kw_only=True):
    """A product can be sold from now on."""

    exchange: ClassVar[str] = PRODUCT_EXCHANGE
    routing_key: ClassVar[str] = "product.created"


class ProductUpdated(_AboutProduct, frozen=True, kw_only=True):
    """A product's name, price or stock was changed by a person; the new state as a whole."""

    exchange: ClassVar[str] = PRODUCT_EXCHANGE
    routing_key: ClassVar[str] = "product.updated"


class ProductArchived(_AboutProduct, frozen=True, kw_only=True):
    """A product is not sold any more; its last state as a whole."""

    exchange: ClassVar[str] = PRODUCT_EXCHANGE
    routing_key: ClassVar[str] = "product.archived"
