"""The envelope of a message: its ids, its request and its time, written and read in this place.

They travel in AMQP properties and headers, because the bodies belong to the contracts. Header
values are strings only: py-amqp writes an integer as field type `L`, which neither Node's amqplib
nor Go's amqp091-go can read.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar

from servicekit.contracts.events import Event
from servicekit.correlation import Correlation

T = TypeVar("T")

_TIME_HEADER = "timestamp_in_ms"
# The year 9999, the last that RFC 3339 can write.
_END_OF_TIME_MS = 253_370_764_800_000
_SHORT_STRING_MAX_BYTES = 255


@dataclass(frozen=True, kw_only=True, slots=True)
class OutgoingMessage:
    """A persistent message, as it goes onto the wire."""

    exchange: str
    routing_key: str
    body: bytes
    message_id: str
    type: str | None = None
    correlation_id: str | None = None
    timestamp: int = field(default_factory=lambda: int(time.time()))
    content_type: str = "application/json"
    content_encoding: str | None = "utf-8"
    headers: Mapping[str, Any] = field(default_factory=dict)

    def properties(self) -> dict[str, Any]:
        """Return the AMQP properties; those without a value are left out."""
        properties = {
            "delivery_mode": 2,
            "content_type": self.content_type,
            "content_encoding": self.content_encoding,
            "message_id": self.message_id,
            "type": self.type,
            "correlation_id": self.correlation_id,
            "timestamp": self.timestamp,
        }
        return {name: value for name, value in properties.items() if value is not None}


class Received(NamedTuple, Generic[T]):
    """A message that could be read, and what its envelope says."""

    event: T
    correlation: Correlation | None = None
    published_at_ms: int | None = None
    """The Unix time at which the broker was given it, if its sender says so and it can be true."""

    @property
    def published_at(self) -> str | None:
        """The same as RFC 3339 with milliseconds."""
        if self.published_at_ms is None:
            return None
        moment = datetime.fromtimestamp(self.published_at_ms / 1000, tz=UTC).replace(tzinfo=None)
        return moment.isoformat(timespec="milliseconds") + "Z"


def event_message(event: Event, correlation: Correlation | None = None) -> OutgoingMessage:
    """Return the message that publishes an event."""
    return OutgoingMessage(
        exchange=event.exchange,
        routing_key=event.routing_key,
        body=event.to_json(),
        message_id=str(event.event_id),
        type=event.routing_key,
        correlation_id=event.correlation_id,
        headers=headers(correlation),
    )


def headers(correlation: Correlation | None) -> dict[str, str]:
    """Return the headers of a message that is given to the broker now."""
    stamp = {_TIME_HEADER: str(time.time_ns() // 1_000_000)}
    return {**correlation.headers, **stamp} if correlation else stamp


def received(event: T, delivery: Any) -> Received[T]:
    """Return what was read from a delivery, with its envelope."""
    found = headers_of(delivery)
    return Received(event, Correlation.of_headers(found), _published_at_ms(found))


def headers_of(delivery: Any) -> Any:
    """Return the headers of a delivery, whatever they are."""
    return delivery.properties.get("application_headers")


def body_of(delivery: Any) -> bytes:
    """Return the bytes of a delivery's body."""
    # An empty body comes as an empty str, and one that Celery's channel has decoded as text.
    body = delivery.body or b""
    return body.encode() if isinstance(body, str) else bytes(body)


def short_text(value: object) -> str | None:
    """Return a property of a stranger's message if it can go into one of ours, else None."""
    # py-amqp reads half a character, and writes it, too; an exception here would stop the queue.
    if isinstance(value, str):
        length = len(value.encode(errors="surrogatepass"))
        if 0 < length <= _SHORT_STRING_MAX_BYTES:
            return value
    return None


def _published_at_ms(found: Any) -> int | None:
    stamp = found.get(_TIME_HEADER) if isinstance(found, Mapping) else None
    if isinstance(stamp, str) and stamp.isascii() and stamp.isdecimal() and len(stamp) <= 15:  # noqa: PLR2004 - digits of the year 9999
        stamp = int(stamp)
    # Not `isinstance`, for which True is a number.
    return stamp if type(stamp) is int and 0 < stamp < _END_OF_TIME_MS else None
