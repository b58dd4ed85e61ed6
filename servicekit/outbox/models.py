"""The events that wait to be published."""

from collections.abc import Iterable
from typing import ClassVar

import msgspec
from django.db import connection, models
from django.db.models import Value
from django.db.models.functions import Now

from servicekit import origin
from servicekit.contracts.events import Event
from servicekit.origin import Origin


class OutgoingEventManager(models.Manager["OutgoingEvent"]):
    """Records and claims events in bulk."""

    def record(self, events: Iterable[Event]) -> None:
        """Store events to be published once the surrounding transaction commits.

        Each is stored with the origin of what is being done in this thread.
        """
        rows = [
            (
                str(event.event_id),
                event.exchange,
                event.routing_key,
                event.correlation_id,
                event.to_json().decode(),
                _headers(origin.of(event.correlation_id)),
            )
            for event in events
        ]
        if not rows:
            return
        # One statement of six arrays, whatever their length: a third of the time of bulk_create.
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO outbox_event
                    (event_id, exchange, routing_key, correlation_id, body, headers)
                SELECT * FROM unnest(
                    %s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::jsonb[]
                )
                """,
                [list(column) for column in zip(*rows, strict=True)],
            )

    def claim(self, limit: int) -> list["OutgoingEvent"]:
        """Lock the oldest events that are due and that no other relay has in its hands."""
        # Never a cursor on the sequence: ids become visible in the order of the commits, not of
        # the numbers, and one that commits late would be skipped for ever.
        due = self.filter(available_at__lte=Now()).order_by("id")
        return list(due.select_for_update(skip_locked=True)[:limit])


def _headers(source: Origin | None) -> str:
    return msgspec.json.encode(source.headers).decode() if source else "{}"


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
