"""The body of a dead letter: how it is shown, and how it is corrected."""

import json
from typing import Any

import msgspec
from django import forms
from django.utils.html import format_html
from unfold.widgets import UnfoldAdminTextareaWidget

from servicekit.backoffice.display import counted
from servicekit.contracts.events import MalformedMessage
from servicekit.dead_letters import replays
from servicekit.dead_letters.models import DeadLetter

SAVE_AND_REPLAY = "dead_letters_deadletter_save_and_replay"
"""What the form says where a saved body is to be sent at once."""
NO_CONSUMER = "no consumer of this service reads the queue"

_SHOWN_BYTES = 64 * 1024
# A form may have 64 KiB, and some characters take three times their size in it.
_EDITABLE_BYTES = 16 * 1024


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
                else f"Not checked: {NO_CONSUMER}.",
            )

    def clean_body_text(self) -> bytes:
        """Take what the consumer of the queue takes."""
        body = self.instance.current_body
        if "body_text" in self.changed_data:
            # A browser sends line breaks as CR LF, whatever they were.
            body = str(self.cleaned_data["body_text"]).replace("\r\n", "\n").encode()
        elif SAVE_AND_REPLAY not in self.data:
            return body
        if reason := replays.refusal(self.instance, body):
            raise forms.ValidationError(reason)
        return body


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


def obstacle(message: DeadLetter | None) -> str:
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


def contract_text(message: DeadLetter) -> str:
    """Return what a body has to be, as JSON Schema."""
    try:
        contract = replays.contract_of(message)
    except MalformedMessage as error:
        return str(error)
    if contract is None:
        return f"Unknown: {NO_CONSUMER}."
    schema = json.dumps(msgspec.json.schema(contract), indent=2, ensure_ascii=False)
    is_task = hasattr(contract, "task_name")
    return ("The second of the three parts of a task's body:\n" if is_task else "") + schema
