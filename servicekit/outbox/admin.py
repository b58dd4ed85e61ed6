"""The outbox: what waits to be published, since when, and what was said to it."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import action

from servicekit.backoffice.actions import ServiceAdmin, confirmed, report
from servicekit.backoffice.display import ago, code, column, duration, number
from servicekit.backoffice.ledgers import LedgerAdmin
from servicekit.outbox.models import OutgoingEvent


def _next_try(event: OutgoingEvent) -> str:
    seconds = (event.available_at - timezone.now()).total_seconds()
    return f"in {duration(seconds)}" if seconds > 0 else "now"


@admin.register(OutgoingEvent)
class OutgoingEventAdmin(LedgerAdmin, ServiceAdmin):
    """Events that the broker has not confirmed yet: usually none for longer than a second."""

    list_display = ["event", "about", "waits", "tries", "outcome", "next_try"]
    ordering = ["id"]
    empty_text = "Everything that has happened is published."
    list_before_template = "backoffice/outbox_note.html"
    actions = ["try_selected_now"]
    actions_row = actions_detail = ["try_now"]

    event = column("event", lambda event: event.routing_key)
    about = column("about", lambda event: code(event.correlation_id))
    waits = column("recorded", lambda event: ago(event.recorded_at))
    tries = column("attempts", lambda event: number(event.attempts))
    outcome = column("last outcome", lambda event: event.last_outcome or "—")
    next_try = column("next attempt", _next_try)

    def has_operate_permission(self, request: HttpRequest, object_id: Any = None) -> bool:  # noqa: ARG002 - unfold's signature
        """Allow it to those who may change events, although nobody edits one."""
        return bool(request.user.has_perm("outbox.change_outgoingevent"))

    def offers(self, row: OutgoingEvent) -> list[str]:  # noqa: ARG002 - of all alike
        """Offer it for every event: it may begin to pause at any moment."""
        return ["try_now"]

    @action(description="Try now", icon="send", permissions=["operate"])
    def try_now(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Have one event published without waiting for the end of its pause."""
        back = HttpResponseRedirect(reverse("admin:outbox_outgoingevent_changelist"))
        if self.get_object(request, object_id) is None:
            messages.success(request, "The event is published already.")
            return back
        return self.ask_about(
            request, object_id, lambda *asked: self.try_selected_now(*asked) or back
        )

    @admin.action(description="Try now", permissions=["operate"])
    def try_selected_now(self, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
        """Have events published without waiting for the end of their pauses."""
        answer = confirmed(
            self,
            request,
            rows,
            about_one="Publish this event now, without waiting for its next attempt?",
            about_many="Publish {count:,} events now, without waiting for their next attempts?",
            button="Try now",
        )
        if isinstance(answer, HttpResponse):
            return answer
        events = list(rows)
        chosen = OutgoingEvent.objects.try_now([event.pk for event in events])
        tried = [event for event in events if event.pk in chosen]
        left = {
            "tried within 30 seconds anyway": len(events) - len(tried),
            "published meanwhile": len(request.POST.getlist(ACTION_CHECKBOX_NAME)) - len(events),
        }
        left = {why: count for why, count in left.items() if count > 0}
        report(self, request, done="handed to the relay", rows=tried, left=left)
        return None
