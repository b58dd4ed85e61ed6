"""The envelope of a message: its ids, its request and its time, written and read in this place.

They travel in AMQP properties and headers, because the bodies belong to the contracts. Header
values are strings only: py-amqp writes an integer as field type `L`, which neither Node's amqplib
nor Go's amqp091-go can read.
"""

import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Generic, NamedTuple, TypeVar

from amqp.serialization import dumps

from servicekit.contracts.events import Event
from servicekit.correlation import Correlation
from servicekit.timestamps import rfc3339

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

    def frames(self, channel: int, frame_max: int) -> bytes:
        """Return the frames that publish it, `mandatory`, on a channel (AMQP 0-9-1, 2.3.5, 4.2).

        py-amqp's own way, which knows every method and property, costs three times as much.
        """
        method = b"".join(
            (_PUBLISH, _short(self.exchange), _short(self.routing_key), b"\x01")  # mandatory
        )
        flags = _DELIVERY_MODE | _HEADERS | _MESSAGE_ID | _TIMESTAMP | _CONTENT_TYPE
        parts = [_short(self.content_type)]
        if self.content_encoding is not None:
            flags |= _CONTENT_ENCODING
            parts.append(_short(self.content_encoding))
        parts += [_table(self.headers), b"\x02"]  # persistent
        if self.correlation_id is not None:
            flags |= _CORRELATION_ID
            parts.append(_short(self.correlation_id))
        parts += [_short(self.message_id), _LONG_LONG.pack(self.timestamp)]
        if self.type is not None:
            flags |= _TYPE
            parts.append(_short(self.type))
        header = _CONTENT_HEADER.pack(_BASIC, 0, len(self.body), flags) + b"".join(parts)
        frames = [_frame(1, channel, method), _frame(2, channel, header)]
        size = frame_max - 8
        frames += (
            _frame(3, channel, self.body[start : start + size])
            for start in range(0, len(self.body), size)
        )
        return b"".join(frames)


_BASIC = 60
_PUBLISH = struct.pack(">HHH", _BASIC, 40, 0)
_CONTENT_HEADER = struct.Struct(">HHQH")
_LONG_LONG = struct.Struct(">Q")
_FRAME = struct.Struct(">BHI")
_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE = 1 << 15, 1 << 14, 1 << 13, 1 << 12
_CORRELATION_ID, _MESSAGE_ID, _TIMESTAMP, _TYPE = 1 << 10, 1 << 7, 1 << 6, 1 << 5


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return _FRAME.pack(kind, channel, len(payload)) + payload + b"\xce"


def _short(text: str) -> bytes:
    octets = text.encode("utf-8", "surrogatepass")
    return len(octets).to_bytes(1, "big") + octets


def _long(octets: bytes) -> bytes:
    return len(octets).to_bytes(4, "big") + octets


def _table(headers: Mapping[str, Any]) -> bytes:
    if all(type(value) is str for value in headers.values()):
        return _long(
            b"".join(
                _short(name) + b"S" + _long(value.encode("utf-8", "surrogatepass"))
                for name, value in headers.items()
            )
        )
    # Of a task, or of a stranger's message that is put back: whatever there is.
    octets: bytes = dumps("F", (headers,))
    return octets


class Received(NamedTuple, Generic[T]):
    """A message that could be read, and what its envelope says."""

    event: T
    correlation: Correlation | None = None
    published_at_ms: int | None = None
    """The Unix time at which the broker was given it, if its sender says so and it can be true."""
    message_id: str | None = None

    happened_at: int | None = None
    """The Unix time in seconds of what it tells, as its sender says."""

    @property
    def published_at(self) -> str | None:
        """The same as RFC 3339 with milliseconds."""
        return None if self.published_at_ms is None else _rfc3339(self.published_at_ms)


# The messages of a batch were given to the broker within few milliseconds.
@lru_cache(maxsize=256)
def _rfc3339(milliseconds: int) -> str:
    return rfc3339(datetime.fromtimestamp(milliseconds / 1000, tz=UTC))


def event_message(event: Event, correlation: Correlation | None = None) -> OutgoingMessage:
    """Return the message that publishes an event."""
    return OutgoingMessage(
        exchange=event.exchange,
        routing_key=event.routing_key,
        body=event.to_json(),
        message_id=event.message_id,
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
    return Received(
        event,
        Correlation.of_headers(found),
        published_at_ms(found),
        delivery.properties.get("message_id"),
        # 64 bits, or not there: py-amqp reads nothing else.
        delivery.properties.get("timestamp"),
    )


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


def published_at_ms(found: Any) -> int | None:
    """Return the Unix time at which the broker was given a message, if its headers tell."""
    stamp = found.get(_TIME_HEADER) if isinstance(found, Mapping) else None
    if isinstance(stamp, str) and stamp.isascii() and stamp.isdecimal() and len(stamp) <= 15:  # noqa: PLR2004 - digits of the year 9999
        stamp = int(stamp)
    # Not `isinstance`, for which True is a number.
    return stamp if type(stamp) is int and 0 < stamp < _END_OF_TIME_MS else None
