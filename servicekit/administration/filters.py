"""Filters of lists."""

from datetime import UTC, datetime
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.contrib.filters.admin import RangeDateTimeFilter


class TimeRange(RangeDateTimeFilter):
    """From a time to a time, in UTC; a day without a time is meant as a whole.

    Unfold's own leaves out what has no time, and hands on times without a zone.
    """

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:  # noqa: ARG002 - Django's signature
        """Keep what is within; an end that is no time restricts nothing."""
        for end, lookup, else_at in (("from", "gte", "00:00:00"), ("to", "lte", "23:59:59.999999")):
            moment = self._moment(end, else_at)
            if moment is not None:
                queryset = queryset.filter(**{f"{self.parameter_name}__{lookup}": moment})
        return queryset

    def _moment(self, end: str, else_at: str) -> datetime | None:
        day = self.used_parameters.get(f"{self.parameter_name}_{end}_0")
        time = self.used_parameters.get(f"{self.parameter_name}_{end}_1") or else_at
        try:
            return datetime.fromisoformat(f"{day}T{time}").replace(tzinfo=UTC) if day else None
        except ValueError:
            return None
