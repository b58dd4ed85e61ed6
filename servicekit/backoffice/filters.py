"""Filters of lists."""

from datetime import UTC, datetime
from typing import Any

from django.contrib import messages
from django.contrib.admin import ChoicesFieldListFilter
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.contrib.filters.admin import RangeDateTimeFilter


class TimeRange(RangeDateTimeFilter):
    """From a time to a time, in UTC; a day without a time is meant as a whole.

    Unfold's own leaves out what has no time, and hands on times without a zone.
    """

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep what is within; nothing, and say so, if an end is not a time."""
        for end, lookup, else_at in (("from", "gte", "00:00:00"), ("to", "lte", "23:59:59.999999")):
            day = self.used_parameters.get(f"{self.parameter_name}_{end}_0")
            time = self.used_parameters.get(f"{self.parameter_name}_{end}_1")
            if not (day or time):
                continue
            try:
                moment = datetime.fromisoformat(f"{day}T{time or else_at}").replace(tzinfo=UTC)
            except ValueError:
                sent = f"{day or ''} {time or ''}".strip()
                messages.error(request, f"“{sent}” is not a valid date and time.")
                return queryset.none()
            queryset = queryset.filter(**{f"{self.parameter_name}__{lookup}": moment})
        return queryset


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
