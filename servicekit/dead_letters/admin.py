"""Dead letters, for the people who decide what becomes of them."""

import json
from collections import Counter
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.db.models import BinaryField, Func, QuerySet, Value
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminTextareaWidget

from servicekit.backoffice.actions import NoteForm, ServiceAdmin, confirmed, report
from servicekit.backoffice.display import (
    Tone,
    ago,
    badge,
    block,
    code,
    column,
    counted,
    moment,
    number,
)
from servicekit.backoffice.ledgers import nobody
from servicekit.dead_letters import services
from servicekit.dead_letters.models import ParkedMessage
from servicekit.dead_letters.services import NotParked

Status = ParkedMessage.Status

_EXCERPT_LENGTH = 120
_SHOWN_BYTES = 64 * 1024
# A form may have 64 KiB, and some characters take three times their size in it.
_EDITABLE_BYTES = 16 * 1024
_SHOWN_EVENTS = 100
_TONES: dict[str, Tone] = {
    Status.PARKED: "danger",
    Status.REPLAY_REQUESTED: "info",
    Status.REPLAYED: "success",
    Status.DISCARDED: "",
}


class BodyForm(forms.ModelForm[ParkedMessage]):
    """The one thing about a dead letter that people may change."""

    body_text = forms.CharField(
        label="Body to replay",
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 12, "spellcheck": "false"}),
        help_text="Correct it here and save, then replay. The received body is kept.",
        # What is saved is what stands there, to the last space.
        strip=False,
        required=False,
    )

    class Meta:
        model = ParkedMessage
        fields: list[str] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "body_text" in self.fields:
            self.fields["body_text"].initial = self.instance.current_body.decode("utf-8", "replace")

    def clean_body_text(self) -> str:
        """Take JSON only: no consumer here reads anything else."""
        # A browser sends line breaks as CR LF, whatever they were.
        text = str(self.cleaned_data["body_text"]).replace("\r\n", "\n")
        if "body_text" in self.changed_data:
            try:
                json.loads(text)
            except (ValueError, RecursionError) as error:
                raise forms.ValidationError(f"This is not JSON: {error}") from error
        return text


class StatusFilter(admin.SimpleListFilter):
    """By what was decided; at first, what nobody has decided about yet."""

    title = "status"
    parameter_name = "status__exact"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002 - Django's signature
        """Offer each status, and all."""
        return [*((each.value, str(each.label)) for each in Status), ("all", "All")]

    def value(self) -> str:
        """Return what was chosen; who searches wants what there is, whatever its status."""
        return str(super().value() or ("all" if self.request.GET.get("q") else Status.PARKED.value))

    def choices(self, changelist: Any) -> Any:
        """Leave out the choice of nothing, which would be that of parked ones."""
        return list(super().choices(changelist))[1:]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep the messages with that status.

        An action on chosen messages gets them all: it refuses what was decided meanwhile, which
        would otherwise be left out without a word.
        """
        are_chosen = request.method == "POST" and request.POST.get("select_across", "0") == "0"
        if are_chosen or self.value() == "all":
            return queryset
        return queryset.filter(status=self.value())


class QueueFilter(admin.SimpleListFilter):
    """By the queue that a message came from."""

    title = "queue"
    parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002 - Django's signature
        """Offer this service's queues."""
        return [(queue, queue) for queue in settings.WORKER_QUEUES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:  # noqa: ARG002 - Django's signature
        """Keep the messages of the one that was chosen."""
        return queryset.filter(queue=self.value()) if self.value() else queryset


@admin.register(ParkedMessage)
class ParkedMessageAdmin(ServiceAdmin):
    """What no consumer could apply: look, correct, replay, or discard."""

    form = BodyForm
    list_display = ["about", "status_badge", "why", "excerpt", "seen", "times"]
    list_display_links = ["about"]
    list_filter = [StatusFilter, QueueFilter]
    search_fields = ["message_id", "correlation_id"]
    search_help_text = "Message id, or the id of the order or product"
    ordering = ["-last_seen", "-id"]
    empty_text = "No messages are waiting for a decision."
    actions = ["replay_selected", "discard_selected"]
    actions_detail = ["replay", "discard"]
    list_before_template = "dead_letters/list_note.html"
    change_form_outer_after_template = "dead_letters/history.html"
    # A replay sends what is saved.
    warn_unsaved_form = True

    # Only consumers make dead letters; and what was decided stays on record.
    has_add_permission = has_delete_permission = nobody

    def get_queryset(self, request: HttpRequest) -> QuerySet[ParkedMessage]:
        """Read the beginning of each body; one may have ten megabytes."""
        beginning = Func(
            "body",
            Value(1),
            Value(_EXCERPT_LENGTH + 1),
            function="SUBSTRING",
            output_field=BinaryField(),
        )
        rows: QuerySet[ParkedMessage] = super().get_queryset(request)
        return rows.defer("body", "edited_body", "headers").annotate(beginning=beginning)

    def matching(self, request: HttpRequest, rows: QuerySet[Any], term: str) -> QuerySet[Any]:  # noqa: ARG002 - of all lists
        """Find by exact id, which has an index."""
        by_message = rows.filter(message_id=term)
        return by_message if by_message.exists() else rows.filter(correlation_id=term)

    # The list

    about = column("message", lambda message: message.routing_key or message.queue)
    status_badge = column(
        "status", lambda message: badge(message.get_status_display(), _TONES[message.status])
    )
    why = column("reason", lambda message: _begun(message.reason, _EXCERPT_LENGTH))
    excerpt = column(
        "body",
        lambda message: code(
            _begun(bytes(message.beginning).decode("utf-8", "replace"), 60) or "empty"
        ),
    )
    seen = column("last seen", lambda message: ago(message.last_seen))
    times = column("times seen", lambda message: number(message.times_seen))

    # The page

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Allow it while nothing is decided."""
        may = bool(super().has_change_permission(request, obj))
        # Unfold asks with the id, where Django has the object.
        is_open = not isinstance(obj, ParkedMessage) or obj.status == Status.PARKED
        return may and is_open

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Say why it is here first, then what it is, then what is in it."""
        facts: list[Any] = [
            "reason",
            ("status_badge", "times_seen"),
            ("first_seen_at", "last_seen_at"),
            ("queue", "routing_key"),
            ("message_id", "correlation_id"),
        ]
        can_edit = self.has_change_permission(request, obj) and _is_editable(obj)
        bodies = (["body_text"] if can_edit else ["body_to_replay"]) + ["body_that_came"]
        return [
            (None, {"fields": facts}),
            ("Body", {"fields": bodies}),
            ("Headers and properties", {"fields": ["all_headers"], "classes": ["collapse"]}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:  # noqa: ARG002 - Django's signature
        """Everything but the body to replay."""
        return [
            *("status_badge", "reason", "queue", "routing_key", "message_id", "correlation_id"),
            *("first_seen_at", "last_seen_at", "times_seen", "all_headers"),
            *("body_that_came", "body_to_replay"),
        ]

    first_seen_at = column("first seen, UTC", lambda message: moment(message.first_seen))
    last_seen_at = column(
        "last seen, UTC",
        lambda message: format_html("{}, {}", moment(message.last_seen), ago(message.last_seen)),
    )
    body_that_came = column("received body", lambda message: block(shown(bytes(message.body))))
    body_to_replay = column(
        "body to replay",
        lambda message: block(
            "The received body." if message.edited_body is None else shown(message.current_body)
        ),
    )
    # What its sender and the broker said about it.
    all_headers = column(
        "headers and properties",
        lambda message: block(
            json.dumps(
                {"headers": message.headers, "properties": message.properties},
                indent=2,
                ensure_ascii=False,
                sort_keys=True,
            )
        ),
    )

    overtaken = {NotParked: ""}

    def beside(self, row: ParkedMessage) -> dict[str, Any]:
        """Return what happened to a message."""
        history = [
            {
                "what": event.get_what_display(),
                "who": event.who or "worker",
                "at": moment(event.at),
                "note": event.note,
                "before": None if event.body_before is None else shown(bytes(event.body_before)),
                "after": None if event.body_after is None else shown(bytes(event.body_after)),
            }
            for event in row.events.order_by("-id")[:_SHOWN_EVENTS]
        ]
        return {"message_history": history}

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: ARG002, FBT001 - Django's signature
        """Save a corrected body through the service, which records who changed it."""
        if "body_text" in form.changed_data:
            services.edit_body(obj.pk, form.cleaned_data["body_text"].encode(), by=_name(request))

    def offers(self, row: ParkedMessage) -> list[str]:
        """Offer a decision while none is made."""
        return ["replay", "discard"] if row.status == Status.PARKED else []

    # Decisions

    @action(
        description="Replay", icon="replay", variant=ActionVariant.PRIMARY, permissions=["change"]
    )
    def replay(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Have one message sent again."""
        return self.ask_about(request, object_id, self.replay_selected)

    @action(
        description="Discard", icon="delete", variant=ActionVariant.DANGER, permissions=["change"]
    )
    def discard(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Decide that one message is not to be applied."""
        return self.ask_about(request, object_id, self.discard_selected)

    @admin.action(description="Replay", permissions=["change"])
    def replay_selected(self, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
        """Have messages sent again."""
        first = rows[:2]
        answer = confirmed(
            self,
            request,
            rows,
            about_one="Send this message to its queue again, with the body below? If it still"
            " cannot be applied, it comes back here.",
            about_many="Send {count:,} messages to their queues again? The worker sends at most"
            " fifty per second. What still cannot be applied comes back here.",
            button="Replay",
            shown=block(shown(first[0].current_body)) if len(first) == 1 else "",
        )
        if isinstance(answer, HttpResponse):
            return answer
        self._decide(request, rows, "queued for replay", services.request_replay)
        return None

    @admin.action(description="Discard", permissions=["change"])
    def discard_selected(self, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
        """Decide that messages are not to be applied."""
        answer = confirmed(
            self,
            request,
            rows,
            about_one="Discard this message? It will not be applied. It stays here, with your"
            " note.",
            about_many="Discard {count:,} messages? They will not be applied. They stay here,"
            " with your note.",
            button="Discard",
            form=NoteForm(request.POST if "note" in request.POST else None),
        )
        if isinstance(answer, HttpResponse):
            return answer
        note = answer.cleaned_data["note"]
        self._decide(
            request,
            rows,
            "discarded",
            lambda ids, by: services.discard(ids, by=by, note=note),
            note=note,
        )
        return None

    def _decide(
        self, request: HttpRequest, rows: QuerySet[Any], done: str, service: Any, note: str = ""
    ) -> None:
        selected = list(rows.order_by("id"))
        parked = [message for message in selected if message.status == Status.PARKED]
        left = Counter(
            f"already {message.get_status_display().lower()}"
            for message in selected
            if message.status != Status.PARKED
        )
        try:
            service([message.pk for message in parked], by=_name(request))
        except NotParked as error:
            messages.error(request, f"Nothing was done. {error}")
        else:
            report(self, request, done=done, rows=parked, left=left, note=note)


def shown(body: bytes) -> str:
    """Return a body as people read it: JSON indented, text as it is, anything else in hex."""
    cut = body[:_SHOWN_BYTES]
    more = f"\n… {counted(len(body) - len(cut), 'more byte')}" if len(body) > len(cut) else ""
    try:
        text = cut.decode()
    except UnicodeDecodeError:
        return cut[:4096].hex(" ") + f"\n({counted(len(body), 'byte')}, not text)"
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return (text + more) or "(empty)"
    return json.dumps(parsed, indent=2, ensure_ascii=False)


def _begun(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}…"


def _is_editable(message: ParkedMessage | None) -> bool:
    if message is None or len(message.current_body) > _EDITABLE_BYTES:
        return False
    try:
        message.current_body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _name(request: HttpRequest) -> str:
    return request.user.get_username()
