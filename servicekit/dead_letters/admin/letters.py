"""Dead letters, for the people who decide what becomes of them."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.db.models import BinaryField, Func, QuerySet, Value
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.html import format_html, format_html_join
from django.utils.module_loading import import_string
from django.utils.safestring import SafeString, mark_safe
from unfold.decorators import action
from unfold.enums import ActionVariant

from servicekit.backoffice.actions import NoteForm, confirmed, report
from servicekit.backoffice.display import (
    Tone,
    ago,
    badge,
    begun,
    block,
    code,
    column,
    moment,
    number,
)
from servicekit.backoffice.elsewhere import page_link
from servicekit.backoffice.ledgers import nobody
from servicekit.dead_letters import services
from servicekit.dead_letters.admin.bodies import (
    SAVE_AND_REPLAY,
    BodyForm,
    contract_text,
    obstacle,
    shown,
)
from servicekit.dead_letters.admin.by_reason import EXCERPT_LENGTH, ByReason, forecast, rate
from servicekit.dead_letters.models import DeadLetter, DeadLetterEvent
from servicekit.dead_letters.recognising import subjects
from servicekit.dead_letters.services import AlreadyDecided, BodyRefused

Status = DeadLetter.Status
What = DeadLetterEvent.What

_SHOWN_EVENTS = 100
_SHOWN_IDS = 5
_TONES: dict[str, Tone] = {
    Status.WAITING: "danger",
    Status.REPLAY_REQUESTED: "info",
    Status.REPLAYED: "success",
    Status.DISCARDED: "",
}


class StatusFilter(admin.SimpleListFilter):
    """By what was decided; at first, what nobody has decided about yet."""

    title = "status"
    parameter_name = "status__exact"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002 - Django's signature
        """Offer each status, and all."""
        return [*((each.value, str(each.label)) for each in Status), ("all", "All")]

    def value(self) -> str:
        """Return what was chosen; who searches wants what there is, whatever its status."""
        return str(
            super().value() or ("all" if self.request.GET.get("q") else Status.WAITING.value)
        )

    def choices(self, changelist: Any) -> Any:
        """Leave out the choice of nothing, which would be that of waiting ones."""
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


def _ids(message: DeadLetter, kind: str) -> list[str]:
    return subjects(message.current_body, message.routing_key, message.correlation_id)[kind]


def _subjects(message: DeadLetter, kind: str, model: str) -> SafeString | str:
    ids = _ids(message, kind)
    more = [f"and {len(ids) - _SHOWN_IDS:,} more"] if len(ids) > _SHOWN_IDS else []
    return _lines([*(page_link(message, model, each) for each in ids[:_SHOWN_IDS]), *more]) or "—"


def _result(message: DeadLetter) -> SafeString | str:
    """Return what came of a message that was sent again."""
    if message.status == Status.REPLAY_REQUESTED:
        return "Not sent yet: the worker does so within a second."
    if message.status == Status.WAITING:
        last = message.events.order_by("-id").exclude(what=What.EDITED).first()
        is_back = last is not None and last.what in {What.CAME_BACK, What.REPLAY_FAILED}
        return f"It came back {ago(last.at)}: {last.note}" if last and is_back else "—"
    if message.status == Status.DISCARDED:
        return "—"
    came_of = import_string(settings.RESULTS_OF_ORDER)
    found = [each for order_id in _ids(message, "order")[:_SHOWN_IDS] for each in came_of(order_id)]
    return _lines(found) or "Sent; it has not come back, and nothing is stored about an order."


def _lines(parts: Sequence[str]) -> SafeString:
    return format_html_join(mark_safe("<br>"), "{}", ((each,) for each in parts))


@admin.register(DeadLetter)
class DeadLetterAdmin(ByReason):
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
    actions_list = ["by_reason"]
    actions_detail = ["replay", "discard"]
    actions_submit_line = ["save_and_replay"]
    list_before_template = "dead_letters/list_note.html"
    change_form_outer_after_template = "dead_letters/history.html"
    # A replay sends what is saved.
    warn_unsaved_form = True

    # Only consumers make dead letters; and what was decided stays on record.
    has_add_permission = has_delete_permission = nobody

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeadLetter]:
        """Read the beginning of each body; one may have ten megabytes."""
        beginning = Func(
            "body",
            Value(1),
            Value(EXCERPT_LENGTH + 1),
            function="SUBSTRING",
            output_field=BinaryField(),
        )
        rows: QuerySet[DeadLetter] = super().get_queryset(request)
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
    why = column("reason", lambda message: begun(message.reason, EXCERPT_LENGTH))
    excerpt = column(
        "body",
        lambda message: code(
            begun(bytes(message.beginning).decode("utf-8", "replace"), 60) or "empty"
        ),
    )
    seen = column("last seen", lambda message: ago(message.last_seen))
    times = column("times seen", lambda message: number(message.times_seen))

    # The page

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Allow it while nothing is decided."""
        may = bool(super().has_change_permission(request, obj))
        # Unfold asks with the id, where Django has the object.
        is_open = not isinstance(obj, DeadLetter) or obj.status == Status.WAITING
        return may and is_open

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Say why it is here first, then what it is, then what is in it."""
        facts: list[Any] = [
            "reason",
            ("status_badge", "times_seen"),
            ("first_seen_at", "last_seen_at"),
            ("queue", "routing_key"),
            ("message_id", "correlation_id"),
            ("orders", "products"),
            "result",
        ]
        may_edit = self.has_change_permission(request, obj)
        why_not = obstacle(obj)
        bodies = ["body_text" if may_edit and not why_not else "body_to_replay", "body_that_came"]
        return [
            (None, {"fields": facts}),
            ("Body", {"fields": bodies, "description": why_not if may_edit else ""}),
            ("Contract", {"fields": ["contract"], "classes": ["collapse"]}),
            ("Headers and properties", {"fields": ["all_headers"], "classes": ["collapse"]}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:  # noqa: ARG002 - Django's signature
        """Everything but the body to replay."""
        return [
            *(["body_text"] if obstacle(obj) else []),
            *("status_badge", "reason", "queue", "routing_key", "message_id", "correlation_id"),
            *("first_seen_at", "last_seen_at", "times_seen", "all_headers"),
            *("body_that_came", "body_to_replay", "contract", "orders", "products", "result"),
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
    contract = column("contract", lambda message: block(contract_text(message)))
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

    orders = column("orders", lambda message: _subjects(message, "order", "orders/order"))
    products = column("products", lambda message: _subjects(message, "product", "products/product"))
    result = column("result", _result)

    overtaken = {AlreadyDecided: "", BodyRefused: ""}

    def beside(self, row: DeadLetter) -> dict[str, Any]:
        """Return what happened to a message, and whether there is anything to save."""
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
        can_save = not obstacle(row)
        return {
            "message_history": history,
            "show_save": can_save,
            "show_save_and_continue": can_save,
        }

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: ARG002, FBT001 - Django's signature
        """Save a corrected body through the service, which records who changed it."""
        if "body_text" in form.cleaned_data:
            services.edit_body(
                obj.pk,
                form.cleaned_data["body_text"],
                by=request.user.get_username(),
                and_replay=SAVE_AND_REPLAY in request.POST,
            )

    @action(description="Save and replay", icon="replay", permissions=["change"])
    def save_and_replay(self, request: HttpRequest, obj: DeadLetter) -> None:
        """Save a corrected body and have it sent: a button beside those that save."""

    def response_change(self, request: HttpRequest, obj: DeadLetter) -> HttpResponse:
        """Say what was done."""
        if SAVE_AND_REPLAY not in request.POST or obstacle(obj):
            return super().response_change(request, obj)
        messages.success(request, "Dead letter saved and queued for replay.")
        return HttpResponseRedirect(self.page_of(obj.pk))

    def offers(self, row: DeadLetter) -> list[str]:
        """Offer a decision while none is made."""
        if row.status != Status.WAITING:
            return []
        return ["replay", "discard"] + ([] if obstacle(row) else ["save_and_replay"])

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
        answer = confirmed(
            self,
            request,
            rows,
            about_one="Send this message to its queue again, with the body below? If it still"
            " cannot be applied, it comes back here.",
            about_many="Send {count:,} messages to their queues again? " + rate(),
            button="Replay",
            shown=lambda: forecast(rows),
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
        waiting = [message for message in selected if message.status == Status.WAITING]
        left = Counter(
            f"already {message.get_status_display().lower()}"
            for message in selected
            if message.status != Status.WAITING
        )
        try:
            service([message.pk for message in waiting], by=request.user.get_username())
        except AlreadyDecided as error:
            messages.error(request, f"Nothing was done. {error}")
        else:
            report(self, request, done=done, rows=waiting, left=left, note=note)
