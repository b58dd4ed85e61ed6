"""Lists of rows that services write, however many there are."""

from functools import cached_property
from typing import Any

from django.contrib.admin import ShowFacets
from django.core.paginator import Paginator
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.views import ChangeList

from servicekit.administration.capped import Capped


class BoundedPaginator(Paginator[Any]):
    """Counts no further than anybody will ever page.

    Django's own counts the whole table for every page, which takes seconds at five million rows.
    """

    MAX_COUNT = 10_000

    @cached_property
    def count(self) -> Capped:
        """How many rows there are, up to `MAX_COUNT`."""
        rows: Any = self.object_list
        # In the order of the page: the same index gives both. Without an order PostgreSQL may
        # look for ten thousand rows of a rare status through the whole table.
        return Capped(rows[: self.MAX_COUNT].count(), self.MAX_COUNT)


class BoundedChangeList(ChangeList):
    """Offers to show all only when it does not."""

    def get_results(self, request: HttpRequest) -> None:
        """Fetch a page."""
        super().get_results(request)
        if not self.has_active_filters and not self.query:
            self.full_result_count = self.result_count


class BoundedAdmin(ModelAdmin):
    """Never counts a whole table."""

    paginator: type[Paginator[Any]] = BoundedPaginator
    show_full_result_count = False
    # A facet is a COUNT(*) per choice of a filter.
    show_facets = ShowFacets.NEVER
    list_per_page = 50
    empty_text = "There are none yet."
    # Filters are seen, and one sees which are set, without opening anything.
    list_filter_sheet = False
    list_filter_submit = True
    list_fullwidth = True
    compressed_fields = True

    def get_changelist(self, request: HttpRequest, **_options: Any) -> type[ChangeList]:  # noqa: ARG002 - Django's signature
        """Return the class that makes a list's page."""
        return BoundedChangeList


class LedgerAdmin(BoundedAdmin):
    """Shows rows that services write and nobody edits."""

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 - Django's signature
        """Nobody adds these by hand."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - Django's signature
        """Nobody changes these by hand."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - Django's signature
        """Nobody deletes these by hand."""
        return False
