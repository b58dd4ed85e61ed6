"""The outbox, for looking at: what waits to be published, and since when."""

from django.contrib import admin
from django.utils.safestring import SafeString

from servicekit.backoffice.display import ago, code
from servicekit.backoffice.ledgers import LedgerAdmin
from servicekit.outbox.models import OutgoingEvent


@admin.register(OutgoingEvent)
class OutgoingEventAdmin(LedgerAdmin):
    """Events that the broker has not confirmed yet: usually none for longer than a second."""

    list_display = ["event", "about", "waits", "attempts", "last_outcome"]
    ordering = ["id"]
    empty_text = "Everything that has happened is published."
    sortable_by = ()
    list_before_template = "backoffice/outbox_note.html"

    @admin.display(description="event")
    def event(self, event: OutgoingEvent) -> str:
        """What has happened."""
        return event.routing_key

    @admin.display(description="about")
    def about(self, event: OutgoingEvent) -> SafeString:
        """The order or product."""
        return code(event.correlation_id)

    @admin.display(description="recorded")
    def waits(self, event: OutgoingEvent) -> str:
        """How long it has been waiting."""
        return ago(event.recorded_at)
