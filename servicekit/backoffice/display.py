"""How values are shown in lists and on pages."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from django.contrib import admin
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

Tone = Literal["success", "warning", "danger", "info", ""]
"""Unfold's names of colours."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def column(title: str, show: Callable[[Any], object], *, sorts_by: str | None = None) -> Any:
    """Return a column of a list, or a fact on a page, for the body of a `ModelAdmin`.

    A list is sorted by a column that names a field which an index gives in both directions.
    """
    return staticmethod(admin.display(description=title, ordering=sorts_by)(show))


def badge(text: object, tone: Tone) -> SafeString:
    """Return a word in a colour that says how good it is."""
    return render_to_string("unfold/helpers/label.html", {"text": text, "variant": tone})


def number(value: int, *, signed: bool = False) -> str:
    """Return an integer with thousands separators."""
    return f"{value:+,}" if signed else f"{value:,}"


def counted(count: int, one: str, many: str = "") -> str:
    """Return a number with what it counts: `1 message`, `2 messages`."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def begun(text: str, length: int) -> str:
    """Return text, cut off where it is too long."""
    return text if len(text) <= length else f"{text[:length]}…"


def code(text: object) -> SafeString:
    """Return an id or the like in letters that are told apart."""
    return format_html('<code class="text-xs">{}</code>', text)


def block(text: str) -> SafeString:
    """Return text of many lines as it is."""
    # Reached by keyboard, to scroll it.
    return format_html('<pre tabindex="0">{}</pre>', text)


def short(text: object) -> SafeString:
    """Return a name for a column: cut off where it is too long, whole to who points at it."""
    return format_html('<span class="block max-w-sm truncate" title="{0}">{0}</span>', text)


def link(address: str, text: object) -> SafeString:
    """Return a link within the admin."""
    return format_html('<a class="text-link" href="{}">{}</a>', address, text)


def duration(seconds: float) -> str:
    """Return a time span in its largest unit: `8 s`, `3 min`, `2 h`, `5 d`."""
    if seconds < _MINUTE:
        return f"{max(0, seconds):.0f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    if seconds < _DAY:
        return f"{seconds / _HOUR:.0f} h"
    return f"{seconds / _DAY:.0f} d"


def ago(moment: datetime) -> str:
    """Return how long ago a moment was."""
    return duration((timezone.now() - moment).total_seconds()) + " ago"


def moment(value: datetime | None) -> str:
    """Return a time in UTC, to the millisecond; who points at it reads it in their own zone."""
    return _time(value, clock(value, day=True)) if value else "—"


def second(value: datetime) -> SafeString:
    """Do the same to the second, for columns."""
    return _time(value, f"{value:%Y-%m-%d %H:%M:%S}")


def _time(value: datetime, shown: str) -> SafeString:
    return format_html('<time datetime="{}">{}</time>', value.isoformat(), shown)


def clock(value: datetime | None, *, day: bool = False) -> str:
    """Return the time of day in UTC, to the millisecond, with its date if wanted."""
    if value is None:
        return "—"
    time = f"{value:%H:%M:%S}.{value.microsecond // 1000:03d}"
    return f"{value:%Y-%m-%d} {time}" if day else time


def span(milliseconds: int) -> str:
    """Return a short time span as it is read best: `95 ms`, `4.1 s`, `3 min`."""
    if milliseconds < 1000:  # noqa: PLR2004 - a second
        return f"{milliseconds:,} ms"
    seconds = milliseconds / 1000
    return f"{seconds:.1f} s" if seconds < _MINUTE else duration(seconds)
