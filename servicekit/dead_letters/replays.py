"""What a replay sends, and whether the consumer of its queue would take it."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.utils.module_loading import import_string

from servicekit.contracts.events import MalformedMessage
from servicekit.dead_letters.models import PARTICULARS, DeadLetter
from servicekit.messaging.consumer import read
from servicekit.messaging.envelope import OutgoingMessage, short_text

# Of a message's first life: they would be taken for those of the second.
_OLD_HEADERS = ("x-death", "x-first-death-", "x-last-death-", "x-dead-letter-", "x-delivery-count")

REHEARSED = 5_000
"""How many messages a rehearsal reads at most ..."""
_REHEARSED_BYTES = 16 * 1024 * 1024
"""... and how much of them."""
_READ_TOGETHER = 200


def outgoing(message: DeadLetter, body: bytes | None = None) -> OutgoingMessage:
    """Return the message as it came the first time: whoever consumes the queue takes it."""
    properties = message.properties
    headers: dict[str, Any] = {
        name: value
        for name, value in message.headers.items()
        if not name.startswith(_OLD_HEADERS) and short_text(name) is not None
    }
    return OutgoingMessage(
        exchange="",
        routing_key=message.queue,
        body=message.current_body if body is None else body,
        message_id=short_text(message.message_id) or str(uuid4()),
        # The routing key is now the queue's name: this is how a consumer tells events apart.
        type=short_text(message.routing_key if message.routing_key != message.queue else "")
        or short_text(properties.get("type")),
        correlation_id=short_text(message.correlation_id),
        content_type=short_text(properties.get("content_type")) or "application/octet-stream",
        content_encoding=short_text(properties.get("content_encoding")),
        headers=headers,
    )


def contract_of(message: DeadLetter) -> Any:
    """Return the contract of a message's body, None where no consumer of ours reads its queue.

    :raises MalformedMessage: if the message does not say which: no body of it is ever taken
    """
    source = _sources().get(message.queue)
    return source and source.contract_of(_delivery(message, b""))


def refusal(message: DeadLetter, body: bytes | None = None) -> str:
    """Return why its consumer would not take a message, with this body or the one it has.

    It is read by what the consumer reads it with. Empty: it can be read, or nobody here reads its
    queue. Whether what it says can be applied is seen when it is.
    """
    source = _sources().get(message.queue)
    if source is None:
        return ""
    try:
        read(source, _delivery(message, body))
    except MalformedMessage as error:
        return str(error)
    return ""


@dataclass
class Rehearsal:
    """What consumers would make of messages, as far as they were read."""

    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """How many would be refused, by the reason without ids and figures."""
    unchecked: int = 0
    """How many come from queues that no consumer of this service reads."""


def rehearse(messages: Any) -> Rehearsal:
    """Read messages as their consumers would, the oldest first, as many as `REHEARSED`."""
    result = Rehearsal()
    ids = DeadLetter.objects.pick(messages.order_by("id"), REHEARSED, limit_bytes=_REHEARSED_BYTES)
    for start in range(0, len(ids), _READ_TOGETHER):
        chunk = DeadLetter.objects.filter(pk__in=ids[start : start + _READ_TOGETHER])
        _rehearse(chunk, result)
    return result


def _rehearse(messages: Iterable[DeadLetter], result: Rehearsal) -> None:
    for message in messages:
        if message.queue not in _sources():
            result.unchecked += 1
        elif reason := refusal(message):
            result.refused[re.sub(PARTICULARS, "…", reason)] += 1
        else:
            result.accepted += 1


@cache
def _sources() -> dict[str, Any]:
    """Return what the worker of this service reads its queues with, by queue."""
    return {source.queue: source for source in import_string(settings.WORKER_SOURCES)}


def _delivery(message: DeadLetter, body: bytes | None = None) -> Any:
    """Return what the consumer of a replay is handed."""
    sent = outgoing(message, body)
    properties = {
        "application_headers": sent.headers,
        "type": sent.type,
        "message_id": sent.message_id,
    }
    return SimpleNamespace(
        body=sent.body, properties=properties, delivery_info={"routing_key": sent.routing_key}
    )
