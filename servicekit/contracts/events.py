"""The events of the system.

Each is published on its `exchange` with its `routing_key`. It is never changed, only added to: a
breaking change is a new routing key beside the old one.
"""

from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from hashlib import sha1
from typing import Annotated, Any, ClassVar, Self
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec

from servicekit.contracts.fields import (
    Money,
    OrderReference,
    Quantity,
    Stock,
    Version,
    decode_strictly,
)

ORDER_EXCHANGE = "order.exchange"
PRODUCT_EXCHANGE = "product.exchange"

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
        return UUID(self.message_id)

    @property
    def message_id(self) -> str:
        """The same as text: a name-based UUID (RFC 9562, section 5.5)."""
        # As `uuid5` makes it, in a third of the time.
        name = f"{self.routing_key}:{self.subject}".encode()
        digest = sha1(_EVENT_IDS.bytes + name, usedforsecurity=False).hexdigest()
        variant = "89ab"[int(digest[16], 16) % 4]
        return (
            f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"
        )

    @property
    def parts(self) -> Sequence[object]:
        """What the message tells, one by one: more than one where it tells of a batch."""
        return (self,)

    def to_json(self) -> bytes:
        """Return the body as it is published."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Read a body, ours or that of any other producer.

        :raises MalformedMessage: if the contract does not allow it
        """
        try:
            event = msgspec.json.decode(body, type=cls)
            # The rare body that could have a name twice is read again, by who would see it.
            parts = event.parts
            part: Any = type(parts[0]) if parts else cls
            for name in _quoted_names(cls, part):
                if body.count(name) > len(parts):
                    decode_strictly(body.decode())
                    break
        # Whatever a stranger's bytes do to the parser (bad UTF-8, nesting 100,000 deep) is
        # said of the message, not of us.
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise MalformedMessage(f"{cls.routing_key}: {error}") from error
        return event


@cache
def _quoted_names(whole: Any, part: Any) -> list[bytes]:
    names = {*whole.__struct_encode_fields__, *part.__struct_encode_fields__}
    return [f'"{name}"'.encode() for name in names]


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

    # Ours always have both. Nobody needs them to reserve stock, so what others write there, and
    # whether they do, is their business.
    total_price: Annotated[Any, msgspec.Meta(extra_json_schema={"type": "integer"})] = None
    created_at: Annotated[Any, msgspec.Meta(extra_json_schema={"type": "string"})] = None


class OrderCancelled(_AboutOrder, frozen=True, kw_only=True):
    """An order is not wanted any more; what was reserved for it goes back into stock."""

    exchange: ClassVar[str] = ORDER_EXCHANGE
    routing_key: ClassVar[str] = "order.cancelled"

    cancelled_at: str | None = None


class StockOutcome(StrEnum):
    """What an order gets of the stock."""

    RESERVED = "RESERVED"
    """All its units, taken from the stock."""
    REJECTED = "REJECTED"
    """Nothing, for the reason given."""
    CANCELLED = "CANCELLED"
    """Nothing, because it was cancelled before it was decided."""


class StockDecision(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The outcome for one order; `remaining` units of the product are left afterwards."""

    order_id: OrderReference
    product_id: UUID
    quantity: Quantity
    outcome: StockOutcome
    reason: str = ""
    remaining: Stock
    version: Version
    # Of the product at that moment: who keeps a copy hears with each order whether it still holds.
    price: Money | None = None
    # When the order reached the broker, and when its stock was decided: for its timeline.
    announced_at: str | None = None
    decided_at: str | None = None
    # Of the request that the order came from.
    request_id: str | None = None
    traceparent: str | None = None
    # Whether somebody else has announced the order, and the order service has not.
    foreign: bool = False


class StockDecided(Event, frozen=True, kw_only=True):
    """The stock of some orders is decided: those that one transaction has decided."""

    exchange: ClassVar[str] = PRODUCT_EXCHANGE
    routing_key: ClassVar[str] = "stock.decided"

    decisions: list[StockDecision]

    @property
    def parts(self) -> Sequence[object]:
        """The decisions."""
        return self.decisions

    @property
    def subject(self) -> str:
        """The orders and their outcomes."""
        return ",".join(f"{each.order_id}:{each.outcome}" for each in self.decisions)

    @property
    def correlation_id(self) -> str:
        """The order where there is only one; else the id of the event."""
        return str(self.decisions[0].order_id) if len(self.decisions) == 1 else self.message_id


class StockReleased(_AboutOrder, frozen=True, kw_only=True):
    """The stock of a cancelled order was given back; `remaining` units are there now."""

    exchange: ClassVar[str] = PRODUCT_EXCHANGE
    routing_key: ClassVar[str] = "stock.released"

    remaining: Stock
    version: Version
    released_at: str | None = None
    foreign: bool = False


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
    """A person changed a product's name, price or stock, or sells it again; its whole new state."""

    exchange: ClassVar[str] = PRODUCT_EXCHANGE
    routing_key: ClassVar[str] = "product.updated"


class ProductArchived(_AboutProduct, frozen=True, kw_only=True):
    """A product is not sold any more; its last state as a whole."""

    exchange: ClassVar[str] = PRODUCT_EXCHANGE
    routing_key: ClassVar[str] = "product.archived"
