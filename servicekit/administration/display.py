"""How values are shown in lists and on pages."""

from datetime import datetime
from typing import Literal

from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

Tone = Literal["good", "warn", "bad", "info", ""]

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def badge(text: str, tone: Tone) -> SafeString:
    """Return a word in a colour that says how good it is."""
    return format_html('<span class="sk-badge sk-{}">{}</span>', tone or "plain", text)


def money(amount: int) -> SafeString:
    """Return an amount in the currency's smallest unit, readable and still that integer."""
    return format_html('<span class="sk-number">{}</span>', f"{amount:,}")


def number(value: int, *, signed: bool = False) -> SafeString:
    """Return an integer with thousands separators."""
    return format_html('<span class="sk-number">{}</span>', f"{value:+,}" if signed else f"{value:,}")


def code(text: object) -> SafeString:
    """Return an id or the like in letters that are told apart."""
    return format_html('<code class="sk-code">{}</code>', text)


def link(address: str, text: object) -> SafeString:
    """Return a link within the admin."""
    return format_html('<a class="sk-link" href="{}">{}</a>', address, text)


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
    """Return a time in UTC, to the millisecond."""
    return f"{value:%Y-%m-%d %H:%M:%S}.{value.microsecond // 1000:03d}" if value else "—"
