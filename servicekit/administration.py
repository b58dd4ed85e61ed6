"""What the admin pages of both services have in common."""

from functools import cached_property
from typing import Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.http import HttpRequest


class BoundedPaginator(Paginator[Any]):
    """Counts no further than anybody will ever page.

    Django's own counts the whole table for every page, which takes seconds at five million rows.
    """

    MAX_COUNT = 10_000

    @cached_property
    def count(self) -> int:
        """How many rows there are, up to `MAX_COUNT`."""
        rows: Any = self.object_list
        return int(rows.order_by()[: self.MAX_COUNT].count())


class LedgerAdmin(admin.ModelAdmin[Any]):
    """Shows rows that services write and nobody edits, however many there are."""

    paginator = BoundedPaginator
    show_full_result_count = False
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 - Django's signature
        """Nobody adds these by hand."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - Django's signature
        """Nobody changes these by hand."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - Django's signature
        """Nobody deletes these by hand."""
        return False
