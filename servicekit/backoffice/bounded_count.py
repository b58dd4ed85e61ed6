"""Counts that stop before they cost anything."""

from collections.abc import Mapping
from typing import Any

from django.db import connection


class BoundedCount(int):
    """A count that says `10,000+` when it was given up at ten thousand."""

    is_at_limit: bool

    def __new__(cls, value: int, limit: int) -> "BoundedCount":
        """Return `value`, or the limit when there are as many or more."""
        made = super().__new__(cls, min(value, limit))
        made.is_at_limit = value >= limit
        return made

    def __str__(self) -> str:
        return f"{int(self):,}" + ("+" if self.is_at_limit else "")


LIMIT = 10_000


def count_rows(rows: Any) -> BoundedCount:
    """Count a queryset, no further than `LIMIT`, in its own order and so by that order's index."""
    return BoundedCount(rows[:LIMIT].count(), LIMIT)


def rows_of(sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Run a query that the ORM has no words for, and return its rows by column name."""
    with connection.cursor() as cursor:
        cursor.execute(sql, dict(parameters))
        columns = [column.name for column in cursor.description or ()]
        return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
