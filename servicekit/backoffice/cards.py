"""What a dashboard is made of, as unfold's components take it."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.utils.safestring import SafeString

from servicekit.backoffice.display import Tone

GREEN, AMBER, RED, GREY, SKY = "#10b981", "#f59e0b", "#ef4444", "#94a3b8", "#0ea5e9"

_TEXT = "#8b93a1"  # Readable on white and on black.
_AXIS = {"stacked": True, "ticks": {"color": _TEXT}, "grid": {}}
_CHART_OPTIONS = json.dumps(
    {
        "animation": False,
        "maintainAspectRatio": False,
        "interaction": {"mode": "index", "intersect": False},
        "plugins": {"legend": {"align": "end", "labels": {"color": _TEXT, "boxWidth": 12}}},
        "scales": {
            "x": _AXIS | {"grid": {"display": False},
                          "ticks": {"color": _TEXT, "maxTicksLimit": 9, "maxRotation": 0}},
            "y": _AXIS | {"ticks": {"color": _TEXT, "precision": 0, "maxTicksLimit": 6}},
        },
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One figure."""

    title: str
    value: str
    note: str = ""
    tone: Tone = ""
    link: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """A part of the dashboard: a chart, a table or bars, or the sentence `empty` instead."""

    title: str
    note: str = ""
    width: str = ""
    """A class for the grid: a card is a third of its width."""
    action: SafeString | str = ""
    empty: str = ""
    chart: str = ""
    chart_options: str = _CHART_OPTIONS
    table: Mapping[str, Any] = field(default_factory=dict)
    """`headers` and `rows`."""
    bars: Sequence[Mapping[str, Any]] = ()
    """`title`, `description`, `value` in percent, `tone`, and where there are: `note`, `href`."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One colour of a chart over time: values by time, of which a bar is the sum."""

    label: str
    colour: str
    values: Mapping[datetime, int] = field(default_factory=dict)


def over_time(
    series: Sequence[Series], *, since: datetime, until: datetime, bar: timedelta, **about: Any
) -> Card:
    """Return a chart of stacked bars, from `since` on, without gaps where nothing happened."""
    starts = [since + number * bar for number in range((until - since) // bar + 1)]
    label = "%-d %b" if bar >= timedelta(days=1) else "%H:%M"
    if until - since > timedelta(days=1) > bar:
        label = f"%-d %b {label}"
    sums: list[Counter[datetime]] = []
    for each in series:
        sums.append(Counter())
        for moment, value in each.values.items():
            sums[-1][since + (moment - since) // bar * bar] += value
    chart = {
        "labels": [f"{start:{label}}" for start in starts],
        "datasets": [
            {
                "label": each.label,
                "data": [counted[start] for start in starts],
                "backgroundColor": each.colour,
            }
            for each, counted in zip(series, sums, strict=True)
        ],
    }
    is_empty = not any(any(each.values.values()) for each in series)
    return Card(chart="" if is_empty else json.dumps(chart), width="lg:col-span-2", **about)


def shares(parts: Sequence[tuple[str, int, Tone]], **about: Any) -> Card:
    """Return a bar for each (label, count, tone) that there are any of."""
    total = sum(count for _label, count, _tone in parts)
    return Card(
        bars=[
            {
                "title": label,
                "description": f"{count:,} ({count / total:.0%})",
                "value": round(100 * count / total),
                "tone": tone,
            }
            for label, count, tone in parts
            if count
        ],
        **about,
    )
