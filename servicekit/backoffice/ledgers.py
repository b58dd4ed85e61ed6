"""Lists of rows that services write, however many there are."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib import messages
from django.contrib.admin import ShowFacets
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ERROR_FLAG, SEARCH_VAR
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db import DataError
from django.db.models import Value
from django.http import HttpRequest, HttpResponseRedirect
from unfold.admin import ModelAdmin
from unfold.paginator import InfinitePage, InfinitePaginator
from unfold.views import ChangeList

from servicekit.backoffice.elsewhere import other_admin

MAX_SELECTED = 500
"""How many rows one action takes at once."""


# What an address may have that only the database, or the way to it, refuses: half a regular
# expression, the year 0, text to compare with bytes.
_NONSENSE = (DataError, IndexError, OverflowError, TypeError, ValidationError, ValueError)


@contextmanager
def filtered() -> Iterator[None]:
    """Run the query of a list.

    :raises IncorrectLookupParameters: if its filters cannot be meant, as Django raises for others
    """
    try:
        yield
    except _NONSENSE as error:
        raise IncorrectLookupParameters(error) from error


class BoundedPaginator(InfinitePaginator):
    """Counts nothing, and ends where paging costs too much."""

    count = 10_000
    """How many rows a list shows at most."""

    def page(self, number: int) -> Any:
        """Return a page; one beyond the end has no rows, and the list says why."""
        if number > self.num_pages:
            return InfinitePage([], number, self)
        return super().page(number)


class BoundedChangeList(ChangeList):
    """Tells how many rows match, and offers to select all of them, where an action takes all."""

    def get_filters_params(self, params: Any = None) -> dict[str, Any]:
        """Return the filters, without the fields of their form that nobody has filled in."""
        sent = super().get_filters_params(params)
        return {name: values for name, values in sent.items() if any(values)}

    def get_ordering_field(self, field_name: Any) -> str | None:
        """Return what a column sorts by; None if its header does not offer it."""
        return _order_of(self.model_admin, field_name)

    def get_ordering(self, request: HttpRequest, queryset: Any) -> list[Any]:
        """Return the order; the reverse of the list's own is that of all its fields: one index."""
        asked = super().get_ordering(request, queryset)
        reverse = [_reversed(field) for field in self.model_admin.get_ordering(request)]
        ordering = reverse if asked[0] == reverse[0] else asked
        return list(self._get_deterministic_ordering(ordering))

    @property
    def chips(self) -> list[tuple[str, str, str]]:
        """What restricts the list: by what, to what, and the query string of the list without."""
        chips = []
        if self.query:
            chips.append(("search", self.query, self.get_query_string({SEARCH_VAR: None})))
        others = self.get_filters_params()
        for spec in self.filter_specs:
            everything, *choices = spec.choices(self)
            chips += [
                (spec.title, choice["display"], everything["query_string"])
                for choice in choices
                if choice["selected"] and spec.used_parameters
            ]
            others = {
                name: value for name, value in others.items() if name not in spec.used_parameters
            }
        for name, value in others.items():
            # Of a link from another page.
            title = name.partition("__")[0].replace("_", " ")
            chips.append((title, value[-1], self.get_query_string({name: None})))
        return chips

    @property
    def without_chips(self) -> str:
        """The query string of the list that nothing restricts."""
        everything = dict.fromkeys([SEARCH_VAR, *self.get_filters_params()])
        return str(self.get_query_string(everything))

    def get_results(self, request: HttpRequest) -> None:
        """Fetch a page."""
        with filtered():
            super().get_results(request)
            count = self.queryset[: MAX_SELECTED + 1].count()
        is_exact = count <= MAX_SELECTED
        self.result_count = count if is_exact else len(self.result_list)
        if not is_exact or not (self.has_active_filters or self.query):
            # Unfold shows the count where these two differ.
            self.full_result_count = self.result_count


class BoundedAdmin(ModelAdmin):
    """Never counts a whole table."""

    paginator: type[Paginator[Any]] = BoundedPaginator
    show_full_result_count = False
    # A facet is a COUNT(*) per choice of a filter.
    show_facets = ShowFacets.NEVER
    list_per_page = 50
    empty_text = "Nothing here yet."
    empty_value_display = "—"
    # Filters are seen, and one sees which are set, without opening anything.
    list_filter_sheet = False
    list_fullwidth = True
    compressed_fields = True

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the rows, each with where this browser finds the other service's admin."""
        return super().get_queryset(request).annotate(other_admin=Value(other_admin(request)))

    def get_sortable_by(self, request: HttpRequest) -> Any:
        """Return the columns that say what they sort by: by another, a list would need an index."""
        return [name for name in self.get_list_display(request) if _order_of(self, name)]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        """Show the list; say so when something in its address was not understood."""
        if "%00" in request.META["QUERY_STRING"]:
            # PostgreSQL has no such character.
            return HttpResponseRedirect(f"{request.path}?{ERROR_FLAG}=1")
        if ERROR_FLAG in request.GET:
            messages.warning(request, "The filter or page is not valid: the list is not filtered.")
        return super().changelist_view(request, extra_context)

    def response_action(self, request: HttpRequest, queryset: Any, *args: Any) -> Any:
        """Take an action, if what was selected is in the list, as it is filtered, still."""
        ids = request.POST.getlist(ACTION_CHECKBOX_NAME)
        is_across = request.POST.get("select_across", "0") != "0"
        try:
            with filtered():
                rows = queryset if is_across else queryset.filter(pk__in=ids)
                is_any = not ids or rows.exists()
        except IncorrectLookupParameters:
            is_any = False
        if is_any:
            return super().response_action(request, queryset, *args)
        messages.warning(request, "What was selected is not in this list any more.")
        return HttpResponseRedirect(request.get_full_path())

    def matching(self, request: HttpRequest, rows: Any, term: str) -> Any:  # noqa: ARG002 - for those that look by an index
        """Return the rows that are searched for; nothing: by parts of `search_fields`."""
        return None

    def get_search_results(
        self, request: HttpRequest, queryset: Any, search_term: str
    ) -> tuple[Any, bool]:
        """Search, without the white space around the term."""
        term = search_term.strip()
        rows = self.matching(request, queryset, term) if term else queryset
        if rows is None:
            return super().get_search_results(request, queryset, term)  # type: ignore[no-any-return]  # unfold has no types
        return rows, False

    def get_paginator(self, request: HttpRequest, queryset: Any, *args: Any, **options: Any) -> Any:  # noqa: ARG002 - Django's signature
        """Page the list by our paginator, and a row's history, which is short, by Django's."""
        kind = self.paginator if queryset.model is self.model else Paginator
        return kind(queryset, *args, **options)

    def get_changelist(self, request: HttpRequest, **_options: Any) -> type[ChangeList]:  # noqa: ARG002 - Django's signature
        """Return the class that makes a list's page."""
        return BoundedChangeList


def _order_of(model_admin: Any, column: str) -> str | None:
    return getattr(getattr(model_admin, column, None), "admin_order_field", None)


def _reversed(field: str) -> str:
    return field.removeprefix("-") if field.startswith("-") else f"-{field}"


def nobody(*_args: object, **_options: object) -> bool:
    """Stand in for `has_…_permission` where no person may."""
    return False


class LedgerAdmin(BoundedAdmin):
    """Shows rows that services write and nobody edits."""

    has_add_permission = has_change_permission = has_delete_permission = nobody
