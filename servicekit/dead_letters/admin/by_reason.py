"""Dead letters by reason: many that were refused alike are decided about together."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.decorators import action

from servicekit.backoffice.actions import NoteForm, ServiceAdmin, asked
from servicekit.backoffice.bounded_count import BoundedCount, count_rows
from servicekit.backoffice.display import ago, begun, block, counted, duration, link, number
from servicekit.contracts.fields import MAX_INT64
from servicekit.dead_letters import replays, selectors, services
from servicekit.dead_letters.admin.bodies import NO_CONSUMER, shown
from servicekit.dead_letters.models import DeadLetter, Group

_SHOWN_REASONS = 5
EXCERPT_LENGTH = 120
_REASONS = "admin:dead_letters_deadletter_by_reason"


class GroupForm(forms.Form):
    """Says, in an address, which messages are meant."""

    queue = forms.CharField(strip=False)
    routing_key = forms.CharField(strip=False, required=False)
    kind = forms.CharField(strip=False, required=False)
    up_to = forms.IntegerField(min_value=1, max_value=MAX_INT64)


class ByReason(ServiceAdmin):
    """The page with the reasons, and the decisions that it offers."""

    @action(description="By reason", url_path="reasons", icon="category", permissions=["view"])
    def by_reason(self, request: HttpRequest) -> HttpResponse:
        """Show which reasons there are, and how many messages wait for each."""
        found = selectors.groups()
        total = BoundedCount(sum(group["count"] for group in found), selectors.GROUPED)
        context = {
            **self.admin_site.each_context(request),
            "title": "Dead letters by reason",
            "opts": self.opts,
            "empty": self.empty_text,
            "note": "Messages that were refused alike, ids and figures aside, are replayed or"
            " discarded together; what would become of them is shown first."
            + (f" Counted are the newest {total:,}." if total.is_at_limit else ""),
            "table": {
                "headers": [
                    "Reason",
                    "Routing key",
                    "Queue",
                    "Waiting",
                    "Newest",
                    "Oldest",
                    "Decide",
                ],
                "rows": [_group_row(group, self.has_change_permission(request)) for group in found],
            },
        }
        return TemplateResponse(request, "dead_letters/reasons.html", context)

    def get_custom_urls(self) -> tuple[tuple[str, str, Any], ...]:
        """Return the addresses where a group is decided about."""
        return (("reasons/<str:decision>/", "dead_letters_deadletter_group", self.decide_group),)

    def decide_group(self, request: HttpRequest, decision: str, **_options: Any) -> HttpResponse:
        """Replay or discard all messages of a group, those that come meanwhile excepted.

        :raises Http404: if it is no decision, or no group
        """
        form, is_replay = GroupForm(request.GET), decision == "replay"
        if not self.has_change_permission(request):
            raise PermissionDenied
        if decision not in {"replay", "discard"} or not form.is_valid():
            raise Http404
        up_to = form.cleaned_data.pop("up_to")
        group, done_with = Group(**form.cleaned_data), HttpResponseRedirect(reverse(_REASONS))
        rows = DeadLetter.objects.waiting_in(group, up_to)
        count = count_rows(rows.order_by("id"))
        if not count:
            messages.warning(request, "No message of this group waits any more.")
            return done_with
        which = f"{count} {'message' if count == 1 else 'messages'} with “{group.kind}”"
        answer = asked(
            self,
            request,
            question=f"Send {which} to {group.queue} again? {rate(count)}"
            if is_replay
            else f"Discard {which}? They will not be applied. They stay here, with your note.",
            button="Replay" if is_replay else "Discard",
            leave_to=reverse(_REASONS),
            form=None if is_replay else NoteForm(request.POST if "note" in request.POST else None),
            shown=lambda: forecast(rows),
        )
        if isinstance(answer, HttpResponse):
            return answer
        facts: dict[str, Any] = {"up_to": up_to, "by": request.user.get_username()}
        if is_replay:
            done = services.request_replay_of_group(group, **facts)
        else:
            done = services.discard_group(group, **facts, note=answer.cleaned_data["note"])
        what = "queued for replay" if is_replay else "discarded"
        messages.success(request, f"{counted(done, 'dead letter')} {what}.")
        return done_with


def rate(count: BoundedCount | None = None) -> str:
    """Say how fast messages are sent, and how long so many take."""
    per_second = settings.REPLAYS_PER_SECOND
    at_least = " at least" if count and count.is_at_limit else ""
    takes = (
        f", which takes{at_least} {duration(count / per_second)}"
        if count and count > per_second
        else ""
    )
    return (
        f"Each worker sends at most {per_second:,} per second{takes}."
        " What still cannot be applied comes back here."
    )


def forecast(rows: QuerySet[Any]) -> SafeString:
    """Return what would become of messages that are replayed, and the body of a single one."""
    count, result = count_rows(rows.order_by("id")), replays.rehearse(rows)
    refused = result.refused.total()
    if count == 1:
        [reason] = result.refused or [""]
        verdict = f"refuse it: {reason}" if reason else "accept it"
        text = f"Today's contract would {verdict}."
        text = f"Not checked: {NO_CONSUMER}." if result.unchecked else text
        # None, if somebody has decided about it at this moment.
        only = rows.first()
        return format_html("<p>{}</p>{}", text, block(shown(only.current_body)) if only else "")
    text = (
        f"Checked against today's contract: {result.accepted + refused:,} of {count}."
        f" {result.accepted:,} would be accepted, {refused:,} would be refused"
        + (":" if refused else ".")
    )
    if result.unchecked:
        text = f"{result.unchecked:,} cannot be checked: {NO_CONSUMER}. {text}"
    reasons = result.refused.most_common(_SHOWN_REASONS)
    others = refused - sum(number for _, number in reasons)
    listed = [(f"{number:,}", reason) for reason, number in reasons]
    listed += [(f"{others:,}", "for other reasons")] if others else []
    return format_html(
        '<p>{}</p><ul class="mb-4 ml-6">{}</ul>',
        text,
        format_html_join("", "<li>{}: {}</li>", listed),
    )


def _group_row(group: Mapping[str, Any], may_decide: bool) -> list[object]:  # noqa: FBT001 - of one row
    what = urlencode({name: group[name] for name in Group._fields})
    listed = f"{reverse('admin:dead_letters_deadletter_changelist')}?{what}"
    address = f"{what}&up_to={group['up_to']}"
    decisions = [
        (f"{reverse('admin:dead_letters_deadletter_group', args=[decision])}?{address}", text)
        for decision, text in (("replay", "Replay"), ("discard", "Discard"))
    ]
    return [
        begun(group["kind"], EXCERPT_LENGTH) or "—",
        group["routing_key"] or "—",
        group["queue"],
        link(listed, number(group["count"])),
        ago(group["newest"]),
        ago(group["oldest"]),
        format_html_join(" ", '<a class="text-link" href="{}">{}</a>', decisions)
        if may_decide
        else "",
    ]
