"""Dead letters, for the people who decide what becomes of them."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec
from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import BinaryField, Func, QuerySet, Value
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.module_loading import import_string
from django.utils.safestring import SafeString, mark_safe
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminTextareaWidget

from servicekit.backoffice.actions import NoteForm, ServiceAdmin, asked, confirmed, report
from servicekit.backoffice.bounded_count import BoundedCount, count_rows
from servicekit.backoffice.display import (
    Tone,
    ago,
    badge,
    block,
    code,
    column,
    counted,
    duration,
    link,
    moment,
    number,
)
from servicekit.backoffice.elsewhere import page_link
from servicekit.backoffice.ledgers import nobody
from servicekit.contracts.events import MalformedMessage
from servicekit.contracts.fields import MAX_INT64
from servicekit.dead_letters import replays, selectors, services
from servicekit.dead_letters.models import DeadLetter, DeadLetterEvent, Group
from servicekit.dead_letters.recognising import subjects
from servicekit.dead_letters.services import AlreadyDecided, BodyRefused

Status = DeadLetter.Status
What = DeadLetterEvent.What

_EXCERPT_LENGTH = 120
_SHOWN_BYTES = 64 * 1024
# A form may have 64 KiB, and some characters take three times their size in it.
_EDITABLE_BYTES = 16 * 1024
_SHOWN_EVENTS = 100
_SHOWN_REASONS = 5
_NO_CONSUMER = "no consumer of this service reads the queue"
_SAVE_AND_REPLAY = "dead_letters_deadletter_save_and_replay"
_REASONS = "admin:dead_letters_deadletter_by_reason"
_SHOWN_IDS = 5
_TONES: dict[str, Tone] = {
    Status.WAITING: "danger",
    Status.REPLAY_REQUESTED: "info",
    Status.REPLAYED: "success",
    Status.DISCARDED: "",
}


class BodyForm(forms.ModelForm[DeadLetter]):
    """The one thing about a dead letter that people may change."""

    body_text = forms.CharField(
        label="Body to replay",
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 12, "spellcheck": "false"}),
        # What is saved is what stands there, to the last space.
        strip=False,
        required=False,
    )

    class Meta:
        model = DeadLetter
        fields: list[str] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "body_text" in self.fields:
            field = self.fields["body_text"]
            field.initial = self.instance.current_body.decode("utf-8", "replace")
            contract = replays.contract_of(self.instance)
            field.help_text = format_html(
                "Correct it here, then save and replay it. The received body is kept. {}",
                f"Saved only if it fits the contract {contract.__name__}, shown below."
                if contract
                else f"Not checked: {_NO_CONSUMER}.",
            )

    def clean_body_text(self) -> bytes:
        """Take what the consumer of the queue takes."""
        body = self.instance.current_body
        if "body_text" in self.changed_data:
            # A browser sends line breaks as CR LF, whatever they were.
            body = str(self.cleaned_data["body_text"]).replace("\r\n", "\n").encode()
        elif _SAVE_AND_REPLAY not in self.data:
            return body
        if reason := replays.refusal(self.instance, body):
            raise forms.ValidationError(reason)
        return body


class GroupForm(forms.Form):
    """Says, in an address, which messages are meant."""

    queue = forms.CharField(strip=False)
    routing_key = forms.CharField(strip=False, required=False)
    kind = forms.CharField(strip=False, required=False)
    up_to = forms.IntegerField(min_value=1, max_value=MAX_INT64)


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
class DeadLetterAdmin(ServiceAdmin):
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
            Value(_EXCERPT_LENGTH + 1),
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
        obstacle = _obstacle(obj)
        bodies = ["body_text" if may_edit and not obstacle else "body_to_replay", "body_that_came"]
        return [
            (None, {"fields": facts}),
            ("Body", {"fields": bodies, "description": obstacle if may_edit else ""}),
            ("Contract", {"fields": ["contract"], "classes": ["collapse"]}),
            ("Headers and properties", {"fields": ["all_headers"], "classes": ["collapse"]}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:  # noqa: ARG002 - Django's signature
        """Everything but the body to replay."""
        return [
            *(["body_text"] if _obstacle(obj) else []),
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
    contract = column("contract", lambda message: block(_contract(message)))
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
        can_save = not _obstacle(row)
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
                by=_name(request),
                and_replay=_SAVE_AND_REPLAY in request.POST,
            )

    @action(description="Save and replay", icon="replay", permissions=["change"])
    def save_and_replay(self, request: HttpRequest, obj: DeadLetter) -> None:
        """Save a corrected body and have it sent: a button beside those that save."""

    def response_change(self, request: HttpRequest, obj: DeadLetter) -> HttpResponse:
        """Say what was done."""
        if _SAVE_AND_REPLAY not in request.POST or _obstacle(obj):
            return super().response_change(request, obj)
        messages.success(request, "Dead letter saved and queued for replay.")
        return HttpResponseRedirect(self.page_of(obj.pk))

    def offers(self, row: DeadLetter) -> list[str]:
        """Offer a decision while none is made."""
        if row.status != Status.WAITING:
            return []
        return ["replay", "discard"] + ([] if _obstacle(row) else ["save_and_replay"])

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
            about_many="Send {count:,} messages to their queues again? " + _rate(),
            button="Replay",
            shown=lambda: _forecast(rows),
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

    # By reason

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
            question=f"Send {which} to {group.queue} again? {_rate(count)}"
            if is_replay
            else f"Discard {which}? They will not be applied. They stay here, with your note.",
            button="Replay" if is_replay else "Discard",
            leave_to=reverse(_REASONS),
            form=None if is_replay else NoteForm(request.POST if "note" in request.POST else None),
            shown=lambda: _forecast(rows),
        )
        if isinstance(answer, HttpResponse):
            return answer
        facts: dict[str, Any] = {"up_to": up_to, "by": _name(request)}
        if is_replay:
            done = services.request_replay_of_group(group, **facts)
        else:
            done = services.discard_group(group, **facts, note=answer.cleaned_data["note"])
        what = "queued for replay" if is_replay else "discarded"
        messages.success(request, f"{counted(done, 'dead letter')} {what}.")
        return done_with

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
            service([message.pk for message in waiting], by=_name(request))
        except AlreadyDecided as error:
            messages.error(request, f"Nothing was done. {error}")
        else:
            report(self, request, done=done, rows=waiting, left=left, note=note)


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
    # Half a character is text in JSON alone: it is shown as it is written there.
    text = json.dumps(parsed, indent=2, ensure_ascii=False)
    return text.encode(errors="backslashreplace").decode()


def _begun(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}…"


def _obstacle(message: DeadLetter | None) -> str:
    """Return why the body of a message cannot be edited; empty: it can be."""
    if message is None:
        return ""
    body = message.current_body
    try:
        replays.contract_of(message)
        if len(body) > _EDITABLE_BYTES:
            return (
                f"The body cannot be edited here: it has {len(body):,} bytes, and the form takes"
                f" {_EDITABLE_BYTES:,}."
            )
        body.decode()
    except MalformedMessage as error:
        return format_html("The body cannot be edited, since none would be accepted: {}.", error)
    except UnicodeDecodeError:
        return "The body cannot be edited here: it is not text (UTF-8)."
    return ""


def _contract(message: DeadLetter) -> str:
    """Return what a body has to be, as JSON Schema."""
    try:
        contract = replays.contract_of(message)
    except MalformedMessage as error:
        return str(error)
    if contract is None:
        return f"Unknown: {_NO_CONSUMER}."
    schema = json.dumps(msgspec.json.schema(contract), indent=2, ensure_ascii=False)
    is_task = hasattr(contract, "task_name")
    return ("The second of the three parts of a task's body:\n" if is_task else "") + schema


def _rate(count: BoundedCount | None = None) -> str:
    rate = settings.REPLAYS_PER_SECOND
    at_least = " at least" if count and count.is_at_limit else ""
    takes = f", which takes{at_least} {duration(count / rate)}" if count and count > rate else ""
    return (
        f"Each worker sends at most {rate:,} per second{takes}."
        " What still cannot be applied comes back here."
    )


def _forecast(rows: QuerySet[Any]) -> SafeString:
    """Return what would become of messages that are replayed, and the body of a single one."""
    count, result = count_rows(rows.order_by("id")), replays.rehearse(rows)
    refused = result.refused.total()
    if count == 1:
        [reason] = result.refused or [""]
        verdict = f"refuse it: {reason}" if reason else "accept it"
        text = f"Today's contract would {verdict}."
        text = f"Not checked: {_NO_CONSUMER}." if result.unchecked else text
        return format_html("<p>{}</p>{}", text, block(shown(rows.get().current_body)))
    text = (
        f"Checked against today's contract: {result.accepted + refused:,} of {count}."
        f" {result.accepted:,} would be accepted, {refused:,} would be refused"
        + (":" if refused else ".")
    )
    if result.unchecked:
        text = f"{result.unchecked:,} cannot be checked: {_NO_CONSUMER}. {text}"
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
        _begun(group["kind"], _EXCERPT_LENGTH) or "—",
        group["routing_key"] or "—",
        group["queue"],
        link(listed, number(group["count"])),
        ago(group["newest"]),
        ago(group["oldest"]),
        format_html_join(" ", '<a class="text-link" href="{}">{}</a>', decisions)
        if may_decide
        else "",
    ]


def _name(request: HttpRequest) -> str:
    return request.user.get_username()
