"""How long the worker's queues are, asked of the broker itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from servicekit.messaging import connections
from servicekit.messaging.connections import CONNECTION_ERRORS, BrokerUnavailable
from servicekit.messaging.topology import dead_letter_queue_name

# A page waits for this: a broker that says nothing costs it a second.
_TIMEOUT_SECONDS = 0.25


@dataclass(frozen=True, kw_only=True)
class QueueDepth:
    """A queue as the broker sees it; without figures when it does not exist."""

    name: str
    waiting: int | None
    consumers: int | None
    dead: int | None
    """Dead letters that have not been moved into the database yet."""


def queue_depths(names: Sequence[str]) -> list[QueueDepth]:
    """Ask the broker how many messages wait in each queue.

    :raises BrokerUnavailable: if it does not answer in time
    """
    connection = connections.connect(settings.BROKER_URL, timeout_seconds=_TIMEOUT_SECONDS)
    try:
        return [_depth(connection, name) for name in names]
    except CONNECTION_ERRORS as error:
        raise BrokerUnavailable(f"the broker does not answer: {error}") from error
    finally:
        connections.close(connection)


def _depth(connection: Any, name: str) -> QueueDepth:
    queue = _declared(connection, name)
    dead = _declared(connection, dead_letter_queue_name(name))
    return QueueDepth(
        name=name,
        waiting=None if queue is None else queue.message_count,
        consumers=None if queue is None else queue.consumer_count,
        dead=None if dead is None else dead.message_count,
    )


def _declared(connection: Any, name: str) -> Any:
    channel = connection.channel()
    try:
        return channel.queue_declare(name, passive=True)
    except connection.channel_errors:
        # There is none, and the broker has closed the channel over it.
        return None
    finally:
        if channel.is_open:
            channel.close()
