"""The events that wait to be published."""

from collections.abc import Iterable
from datetime import timedelta
from typing import ClassVar

from django.db import connection, models, transaction
from django.db.models import Value
from django.db.models.functions import Now
from django.utils import timezone

from servicekit import correlation
from servicekit.contracts.events import Event
from servicekit.database.bulk import as_json

BELL = "outbox"
"""The NOTIFY channel that a trigger on the table rings at every commit that records events."""

# Longer than a publish can take: another relay may have them afterwards.
_LEASE = timedelta(seconds=30)
_FIRST_PAUSE = timedelta(seconds=5)
_LONGEST_PAUSE = timedelta(minutes=5)


class OutgoingEventManager(models.Manager["OutgoingEvent"]):
    """Records and claims events in bulk."""

    def record(self, events: Iterable[Event]) -> None:
        """Store events to be published once the surrounding transaction commits.

        Each is stored with the ids of the request that is being answered.
        """
        rows = [
            {
                "event_id": event.event_id,
                "exchange": event.exchange,
                "routing_key": event.routing_key,
                "correlation_id": event.correlation_id,
                "body": event.to_json().decode(),
                "headers": correlation.headers(),
            }
            for event in events
        ]
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO outbox_event
                    (event_id, exchange, routing_key, correlation_id, body, headers)
                SELECT * FROM json_to_recordset(%s) AS new (
                    event_id uuid, exchange text, routing_key text, correlation_id text, body text,
                    headers jsonb
                )
                """,
                [as_json(rows)],
            )

    def oldest_age(self) -> timedelta | None:
        """Return for how long the oldest event has been waiting; None if none waits."""
        oldest = self.order_by("id").values_list("recorded_at", flat=True).first()
        return timezone.now() - oldest if oldest else None

    def claim(self, limit: int) -> list["OutgoingEvent"]:
        """Take the events that have been due for longest, for as long as a lease."""
        # Never a cursor on the sequence: ids become visible in the order of the commits, not of
        # the numbers, and one that commits late would be skipped for ever.
        due = self.filter(available_at__lte=Now()).order_by("available_at", "id")
        with transaction.atomic(durable=True):
            events = list(due.select_for_update(skip_locked=True)[:limit])
            self.filter(id__in=[event.id for event in events]).update(available_at=Now() + _LEASE)
        return events

    def try_now(self, ids: Iterable[int]) -> set[int]:
        """Have the relay take events that pause; return which.

        Left are those that are due within a lease: a relay may have them in hand, and a second one
        would publish them as well.
        """
        pausing = self.filter(id__in=list(ids), available_at__gt=Now() + _LEASE)
        with transaction.atomic(durable=True):
            # Those that are locked are being taken at this moment.
            locked = pausing.order_by("id").select_for_update(skip_locked=True)
            chosen = set(locked.values_list("id", flat=True))
            self.filter(id__in=chosen).update(available_at=Now())
            with connection.cursor() as cursor:
                cursor.execute(f"NOTIFY {BELL}")
        return chosen


class OutgoingEvent(models.Model):
    """An event on its way to the broker; it is deleted when the broker has confirmed it."""

    id = models.BigAutoField(primary_key=True)
    event_id = models.UUIDField()
    exchange = models.TextField()
    routing_key = models.TextField()
    correlation_id = models.TextField()
    body = models.TextField()
    headers = models.JSONField(db_default=Value({}, models.JSONField()))
    recorded_at = models.DateTimeField(db_default=Now())
    available_at = models.DateTimeField(db_default=Now())
    attempts = models.PositiveIntegerField(db_default=0)
    last_outcome = models.TextField(db_default="")

    objects: ClassVar[OutgoingEventManager] = OutgoingEventManager()

    class Meta:
        db_table = "outbox_event"
        verbose_name = "event in the outbox"
        verbose_name_plural = "events in the outbox"

    def __str__(self) -> str:
        return f"{self.routing_key} {self.correlation_id}"

    @staticmethod
    def pause_after(attempts: int) -> timedelta:
        """Return how long to wait after so many attempts, the last of which failed."""
        return min(_LONGEST_PAUSE, _FIRST_PAUSE * (1 << min(attempts, 10)))
