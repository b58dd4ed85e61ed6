"""Filters of lists."""

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Any

from django.contrib import messages
from django.contrib.admin import ChoicesFieldListFilter
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.contrib.filters.admin import RangeDateTimeFilter

_PRESETS = {
    "hour": ("Last hour", timedelta(hours=1)),
    "today": ("Today", None),
    "day": ("Last 24 hours", timedelta(days=1)),
    "week": ("Last 7 days", timedelta(days=7)),
    "month": ("Last 30 days", timedelta(days=30)),
}


class TimeRange(RangeDateTimeFilter):
    """From a time to a time, in UTC, or the last hour or days; without a time, the whole day.

    Unfold's own leaves out what has no time, and hands on times without a zone.
    """

    template = "backoffice/time_range.html"

    def __init__(
        self, field: Any, request: HttpRequest, params: dict[str, Any], *args: Any, **options: Any
    ) -> None:
        super().__init__(field, request, params, *args, **options)
        self.title = "time"
        self._last = f"{self.parameter_name}_last"
        if self._last in params:
            self.used_parameters[self._last] = params.pop(self._last)[-1]

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        """Return the form and the presets; then what is chosen, as other filters do."""
        name, last = self.parameter_name, self.used_parameters.get(self._last)
        sent = {end: self._sent(end) for end in ("from", "to")}
        ends = [" ".join(filter(None, [end, *parts])) for end, parts in sent.items() if any(parts)]
        shown = _PRESETS.get(last, (last,))[0] if last else " ".join(ends)
        nothing = dict.fromkeys([*self.expected_parameters(), self._last])
        yield {
            "selected": not shown,
            "query_string": changelist.get_query_string(nothing),
            # Not bound, as unfold's is: it would refuse a day without a time.
            "form": self.form_class(
                name=name, initial={f"{name}_{end}": parts for end, parts in sent.items()}
            ),
            "presets": [
                (text, changelist.get_query_string({**nothing, self._last: preset}), preset == last)
                for preset, (text, _) in _PRESETS.items()
            ],
        }
        if shown:
            yield {"selected": True, "display": shown}

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep what is within; nothing, and say so, if an end is not a time."""
        try:
            return queryset.filter(**self._bounds())
        except ValueError as error:
            messages.error(request, f"“{error}” is not a valid date and time.")
            return queryset.none()

    def _bounds(self) -> dict[str, datetime]:
        if last := self.used_parameters.get(self._last):
            if last not in _PRESETS:
                raise ValueError(last)
            now, (_, span) = timezone.now(), _PRESETS[last]
            since = now - span if span else datetime.combine(now, time.min, UTC)
            return {f"{self.parameter_name}__gte": since}
        bounds = {}
        for end, lookup, else_at in (("from", "gte", "00:00:00"), ("to", "lte", "23:59:59.999999")):
            day, at = self._sent(end)
            try:
                if day or at:
                    moment = datetime.fromisoformat(f"{day}T{at or else_at}").replace(tzinfo=UTC)
                    bounds[f"{self.parameter_name}__{lookup}"] = moment
            except ValueError as error:
                raise ValueError(f"{day} {at}".strip()) from error
        return bounds

    def _sent(self, end: str) -> list[str]:
        """Return the day and the time of one end as they were sent, empty where they were not."""
        names = (f"{self.parameter_name}_{end}_{part}" for part in (0, 1))
        return [self.used_parameters.get(name) or "" for name in names]


class AmongNewest(ChoicesFieldListFilter):
    """By a choice that has no index, so only among the newest rows; and says so.

    A page of a rare choice would otherwise be looked for through the whole table.
    """

    LIMIT = 20_000

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        *_, model_admin = args
        self.title = f"{self.title}, among the newest {self.LIMIT:,}"
        self._newest_by = str(model_admin.ordering[0]).removeprefix("-")

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        """Keep the rows with that choice that are newer than the last one looked at."""
        if not self.used_parameters:
            return queryset
        order = self._newest_by
        rows = queryset.model._default_manager.order_by(f"-{order}")  # noqa: SLF001 - Django documents it
        last = rows.values_list(order, flat=True)[self.LIMIT : self.LIMIT + 1].first()
        newest = queryset if last is None else queryset.filter(**{f"{order}__gt": last})
        return super().queryset(request, newest)
