"""How long the worker's queues are, asked of the broker, and what the workers have in hand."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from servicekit import worker_reports
from servicekit.backoffice.display import duration
from servicekit.messaging import connections
from servicekit.messaging.connections import CONNECTION_ERRORS, BrokerUnavailable
from servicekit.messaging.topology import dead_letter_queue_name
from servicekit.worker_reports import Report

# A page waits for this: a broker that says nothing costs it a second.
_TIMEOUT_SECONDS = 0.25
# A worker reports each second, and a batch takes less.
PATIENCE_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class QueueDepth:
    """A queue as the broker sees it; without figures when it does not exist."""

    name: str
    waiting: int | None
    consumers: int | None
    dead: int | None
    """Dead letters that have not been moved into the database yet."""
    in_hand: int | None
    """Taken and not acknowledged, as far as the consumers tell; nothing if not all of them do."""
    oldest_seconds: float | None
    """How long ago the broker was given the first of those."""
    trouble: str
    """Why nothing of it is being done, in words."""

    @property
    def hides_some(self) -> bool:
        """Whether more may be in hand: a consumer that hangs cannot tell what else it was given."""
        return bool(self.trouble and self.consumers)


def queue_depths(
    names: Sequence[str], *, timeout_seconds: float = _TIMEOUT_SECONDS
) -> list[QueueDepth]:
    """Ask the broker how many messages wait in each queue.

    :raises BrokerUnavailable: if it does not answer in time
    """
    connection = connections.connect(settings.BROKER_URL, timeout_seconds=timeout_seconds)
    try:
        reports = worker_reports.newest()
        return [_depth(connection, name, reports) for name in names]
    except CONNECTION_ERRORS as error:
        raise BrokerUnavailable(f"the broker does not answer: {error}") from error
    finally:
        connections.close(connection)


def _depth(connection: Any, name: str, reports: Sequence[Report]) -> QueueDepth:
    queue = _declared(connection, name)
    dead = _declared(connection, dead_letter_queue_name(name))
    consumers = 0 if queue is None else queue.consumer_count
    now = time.time()
    # Of as many as there are consumers: a worker that is gone has reported before those that stay.
    told = [(report.at, report.queues[name]) for report in reports if name in report.queues]
    told = told[:consumers]
    stamps = [each.oldest_at for _, each in told if each.oldest_at is not None]
    silent = max((now - at for at, _ in told), default=0.0)
    busy = max((now - each.busy_since for _, each in told if each.busy_since), default=0.0)
    return QueueDepth(
        name=name,
        in_hand=sum(each.count for _, each in told) if len(told) == consumers else None,
        oldest_seconds=now - min(stamps) if stamps else None,
        trouble="no consumer"
        if not consumers
        else f"no sign of life for {duration(silent)}"
        if silent > PATIENCE_SECONDS
        else f"no progress for {duration(busy)}"
        if busy > PATIENCE_SECONDS
        else "",
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
