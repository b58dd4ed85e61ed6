"""What a dashboard is made of."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal

from servicekit.administration.display import Tone

GREEN, AMBER, RED, GREY, BLUE = "#10b981", "#f59e0b", "#ef4444", "#94a3b8", "#6366f1"
VIOLET, SKY = "#a855f7", "#0ea5e9"

# Readable on white and on black; unfold recolours the grid by itself.
_TEXT = "#8b93a1"
_FONT = {"size": 11}


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One figure."""

    title: str
    value: str
    note: str = ""
    icon: str
    tone: Tone = ""
    link: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    """A part of the dashboard: a third of its width, or `wide` (two thirds), or `full`."""

    template: ClassVar[str]
    title: str
    note: str = ""
    width: Literal["", "wide", "full"] = ""
    link: str = ""
    link_text: str = ""
    empty: str
    """What stands there instead when there is nothing to show."""


@dataclass(frozen=True, kw_only=True)
class Chart(Card):
    """Figures that are drawn."""

    template: ClassVar[str] = "administration/card_chart.html"
    type: str
    data: Mapping[str, Any]
    options: Mapping[str, Any]
    is_empty: bool

    @property
    def data_json(self) -> str:
        """The figures as unfold's script reads them."""
        return json.dumps(self.data)

    @property
    def options_json(self) -> str:
        """How Chart.js draws them."""
        return json.dumps(self.options)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A labelled bar."""

    label: str
    value: str
    percent: float
    tone: Tone = ""
    note: str = ""
    link: str = ""


@dataclass(frozen=True, kw_only=True)
class Bars(Card):
    """A list of things, each with a bar."""

    template: ClassVar[str] = "administration/card_bars.html"
    rows: Sequence[Bar]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not self.rows


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a table."""

    text: str
    tone: Tone = ""
    is_number: bool = False
    link: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Table(Card):
    """Rows and columns."""

    template: ClassVar[str] = "administration/card_table.html"
    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not self.rows


@dataclass(frozen=True, kw_only=True)
class Series:
    """One colour of a chart over time: a value per minute."""

    label: str
    colour: str
    values: Mapping[datetime, int] = field(default_factory=dict)


def per_minute(
    series: Sequence[Series], *, since: datetime, until: datetime, **about: Any
) -> Chart:
    """Return a chart of stacked bars, one per minute, without gaps where nothing happened."""
    first = since.replace(second=0, microsecond=0)
    count = int((until - first) / timedelta(minutes=1)) + 1
    minutes = [first + timedelta(minutes=number) for number in range(count)]
    return Chart(
        type="bar",
        data={
            "labels": [f"{minute:%H:%M}" for minute in minutes],
            "datasets": [
                {
                    "label": each.label,
                    "data": [each.values.get(minute, 0) for minute in minutes],
                    "backgroundColor": each.colour,
                    "stack": "all",
                }
                for each in series
            ],
        },
        options={
            "animation": False,
            "responsive": True,
            "maintainAspectRatio": False,
            "interaction": {"mode": "index", "intersect": False},
            "datasets": {
                "bar": {"barPercentage": 0.9, "categoryPercentage": 0.9, "maxBarThickness": 22}
            },
            "plugins": {
                "legend": {
                    "display": len(series) > 1,
                    "align": "end",
                    "labels": {
                        "boxWidth": 7, "boxHeight": 7, "usePointStyle": True,
                        "pointStyle": "circle", "color": _TEXT,
                    },
                },
            },
            "scales": {
                "x": {
                    "stacked": True,
                    "grid": {"display": False},
                    "ticks": {
                        "color": _TEXT, "font": _FONT, "autoSkip": True, "maxTicksLimit": 9,
                        "maxRotation": 0,
                    },
                },
                "y": {
                    "stacked": True,
                    "beginAtZero": True,
                    "border": {"display": False},
                    "grid": {},
                    "ticks": {"color": _TEXT, "font": _FONT, "precision": 0, "maxTicksLimit": 6},
                },
            },
        },
        is_empty=not any(any(each.values.values()) for each in series),
        **about,
    )  # fmt: skip


def shares(parts: Sequence[tuple[str, int, str]], **about: Any) -> Chart:
    """Return a ring of (label, count, colour)."""
    parts = [part for part in parts if part[1]]
    total = sum(count for _label, count, _colour in parts)
    return Chart(
        type="doughnut",
        data={
            "labels": [
                f"{label}  {count:,} ({count / total:.0%})" for label, count, _colour in parts
            ],
            "datasets": [
                {
                    "data": [count for _label, count, _colour in parts],
                    "backgroundColor": [colour for _label, _count, colour in parts],
                    "borderWidth": 0,
                }
            ],
        },
        options={
            "animation": False,
            "responsive": True,
            "maintainAspectRatio": False,
            "cutout": "68%",
            # Unfold's script asks every chart for them.
            "scales": {},
            "plugins": {
                "legend": {
                    "display": True,
                    "position": "bottom",
                    "labels": {
                        "boxWidth": 7, "boxHeight": 7, "usePointStyle": True,
                        "pointStyle": "circle", "color": _TEXT, "padding": 12,
                    },
                },
            },
        },
        is_empty=not total,
        **about,
    )  # fmt: skip
