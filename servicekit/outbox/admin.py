"""The outbox, for looking at: what waits to be published, and since when."""

from django.contrib import admin

from servicekit.backoffice.display import ago, code, column
from servicekit.backoffice.ledgers import LedgerAdmin
from servicekit.outbox.models import OutgoingEvent


@admin.register(OutgoingEvent)
class OutgoingEventAdmin(LedgerAdmin):
    """Events that the broker has not confirmed yet: usually none for longer than a second."""

    list_display = ["event", "about", "waits", "attempts", "last_outcome"]
    ordering = ["id"]
    empty_text = "Everything that has happened is published."
    list_before_template = "backoffice/outbox_note.html"

    event = column("event", lambda event: event.routing_key)
    about = column("about", lambda event: code(event.correlation_id))
    waits = column("recorded", lambda event: ago(event.recorded_at))
