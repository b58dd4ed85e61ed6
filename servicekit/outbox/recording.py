"""What services call to announce what they have done."""

from collections.abc import Iterable

from django.db import connection

from servicekit.contracts.events import Event
from servicekit.outbox.models import OutgoingEvent


def record_all(events: Iterable[Event]) -> None:
    """Record events to be published when, and only if, the current transaction commits.

    :raises RuntimeError: if there is no transaction, because then a crash could come between
        the change and its announcement
    """
    if not connection.in_atomic_block:
        raise RuntimeError("events are recorded in the transaction that makes them true")
    OutgoingEvent.objects.record(events)
