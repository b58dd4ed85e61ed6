"""What a dead letter is: where it came from, why, and whether it was here before.

Whatever a stranger put into headers and properties comes out as something PostgreSQL can store.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from servicekit.messaging.consumer import REASON_HEADER

_DEPTH = 8
_READ_BYTES = 1024 * 1024
_IDS = uuid5(NAMESPACE_URL, "urn:products-and-orders:dead-letters")


@dataclass(frozen=True, kw_only=True)
class Letter:
    """A message as it was taken from a dead-letter queue."""

    queue: str
    routing_key: str
    reason: str
    body: bytes
    headers: dict[str, Any]
    properties: dict[str, Any]
    message_id: str
    correlation_id: str

    @property
    def parts(self) -> "tuple[Letter]":
        """The letter itself: it tells of one thing."""
        return (self,)

    @property
    def fingerprint(self) -> bytes:
        """The same for the same message, however often it comes."""
        return fingerprint(self.queue, self.message_id, self.body)


def fingerprint(queue: str, message_id: str, body: bytes) -> bytes:
    """Return what tells a message from all others."""
    digest = hashlib.sha256()
    for part in (queue.encode(), message_id.encode(), body):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def read(
    queue: str,
    body: bytes,
    headers: Mapping[str, Any],
    properties: Mapping[str, Any],
) -> Letter:
    """Say what a message in the dead-letter queue of `queue` is.

    Our consumers say in headers why it is one; what the broker put there by itself (because it
    was delivered too often) carries the broker's `x-death`.
    """
    death = _death(headers)
    keys = death.get("routing-keys")
    routing_key = headers.get("x-dead-letter-routing-key") or (
        keys[0] if isinstance(keys, list) and keys else ""
    )
    reason = headers.get(REASON_HEADER)
    if not reason and death:
        reason = f"{queue} {death.get('reason', 'dropped')} it; the worker's log says why"
    return Letter(
        queue=queue,
        routing_key=text(routing_key),
        reason=text(reason or "nobody said why"),
        body=body,
        headers=storable(headers),
        properties=storable(properties),
        # Without an id, the same bytes are the same message.
        message_id=text(properties.get("message_id"))
        or str(uuid5(_IDS, hashlib.sha256(body).hexdigest())),
        correlation_id=text(properties.get("correlation_id")),
    )


def subjects(body: bytes, routing_key: str, correlation_id: str) -> dict[str, list[str]]:
    """Return the ids of the orders and the products that a message is about, in its order.

    As its body names them, at whatever depth; if it names none, by the correlation id.
    """
    found: dict[str, dict[str, None]] = {"order": {}, "product": {}}
    try:
        nested = [json.loads(body)] if len(body) <= _READ_BYTES else []
    except (ValueError, RecursionError):
        nested = []
    while nested:
        each = nested.pop()
        if isinstance(each, list):
            nested += reversed(each)
        elif isinstance(each, dict):
            nested += reversed(each.values())
            # Of orders that are to be stored, and of products, it is just an `id`.
            ids = {
                "order": each.get("orderId", each.get("id") if "productId" in each else None),
                "product": each.get("productId", each.get("id") if "price" in each else None),
            }
            for kind, value in ids.items():
                if isinstance(value, str | int):
                    found[kind].setdefault(text(value))
    if not any(found.values()) and correlation_id:
        about = {"order": "order", "stock": "order", "product": "product"}
        if kind := about.get(routing_key.partition(".")[0], ""):
            found[kind][correlation_id] = None
    return {kind: [*ids] for kind, ids in found.items()}


def _death(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    deaths = headers.get("x-death")
    latest = deaths[0] if isinstance(deaths, list) and deaths else None
    return latest if isinstance(latest, Mapping) else {}


def text(value: object) -> str:
    """Return text as PostgreSQL takes it: without NUL and half characters."""
    if value is None:
        return ""
    clean = str(value).encode("utf-8", "replace").decode()
    return clean.replace("\x00", "\N{REPLACEMENT CHARACTER}")


def storable(value: Any, depth: int = 0) -> Any:
    """Return a header as JSON can hold it; what it cannot becomes text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if depth < _DEPTH:
        if isinstance(value, Mapping):
            return {text(key): storable(each, depth + 1) for key, each in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
            return [storable(each, depth + 1) for each in value]
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "backslashreplace").replace("\x00", "\\x00")
    return text(value)
