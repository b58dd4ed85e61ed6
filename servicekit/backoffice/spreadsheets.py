"""CSV files, which people open in spreadsheets."""

import csv
import re
from collections.abc import Iterable, Iterator
from io import StringIO
from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ERROR_FLAG
from django.db import connection
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponseRedirect, StreamingHttpResponse
from import_export.admin import ExportMixin
from import_export.formats.base_formats import CSV
from import_export.resources import Resource
from import_export.widgets import CharWidget
from unfold.contrib.import_export.forms import ExportForm

from servicekit.backoffice.ledgers import filtered

# Written in a few milliseconds, in which a web process does nothing else.
_CHUNK_ROWS = 100

# What a spreadsheet takes for a formula, and what already looks like the escape of one.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_ESCAPED = re.compile(r"'+[=+\-@\t\r]")


class Text(CharWidget):
    """Text that no spreadsheet runs: an apostrophe is put before it, and is taken off again.

    The library's own setting for it takes the equals sign away instead, and nothing else; what
    is imported again would then have another name.
    """

    def clean(self, value: Any, row: Any = None, **options: Any) -> str:
        """Return the text without the white space around it, as the API does."""
        text = str(super().clean(value, row, **options) or "").strip()
        return text[1:].strip() if _ESCAPED.match(text) else text

    def render(self, value: Any, obj: Any = None, **options: Any) -> str:
        """Return the text, escaped where a spreadsheet would take it for a formula."""
        text = str(super().render(value, obj, **options) or "")
        return f"'{text}" if _FORMULA.match(text) else text


def in_chunks(rows: QuerySet[Any]) -> Iterator[list[Any]]:
    """Return all rows in their order, in chunks, each asked for by its own short statement.

    A single statement would be ended by its timeout, and a cursor would keep a connection for as
    long as the client takes. The order must end with a unique field.
    """
    ordering = [str(field) for field in dict.fromkeys(rows.query.order_by)]
    names = [field.removeprefix("-") for field in ordering]
    chunk = list(rows[:_CHUNK_ROWS])
    while chunk:
        # Whoever asks for the next chunk may do so much later.
        connection.close_if_unusable_or_obsolete()
        yield chunk
        values = [getattr(chunk[-1], name) for name in names]
        after = Q()
        for field, name, value in [*zip(ordering, names, values, strict=True)][::-1]:
            beyond = Q((f"{name}__{'lt' if field.startswith('-') else 'gt'}", value))
            after = beyond | (Q((name, value)) & after) if after else beyond
        # The first condition is for the index, which finds nothing by the other.
        end = "lte" if ordering[0].startswith("-") else "gte"
        rest = rows.filter(after, **{f"{names[0]}__{end}": values[0]})
        chunk = list(rest[:_CHUNK_ROWS])


class StreamedExport(ExportMixin):
    """Exports a list as it is filtered and sorted, however long, to those who may see it."""

    formats = [CSV]
    export_form_class = ExportForm
    export_template_name = "backoffice/export.html"
    export_hint = ""

    def has_export_permission(self, request: HttpRequest) -> bool:
        """Allow it to those who may see the same on pages."""
        return bool(self.has_view_permission(request))

    def get_export_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Say what else there is to know about the file."""
        return {**super().get_export_context_data(**kwargs), "hint": self.export_hint}

    def export_action(self, request: HttpRequest) -> Any:
        """Ask in which format, or send the file; nothing of a list that cannot be meant."""
        try:
            return super().export_action(request)
        except IncorrectLookupParameters:
            return HttpResponseRedirect(f"../?{ERROR_FLAG}=1")

    def get_export_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the rows of the list, which the database has looked for."""
        rows: QuerySet[Any] = super().get_export_queryset(request)
        with filtered():
            rows[:1].count()
        return rows

    def get_valid_export_item_pks(self, request: HttpRequest) -> list[Any]:  # noqa: ARG002 - import-export's signature
        """Refuse selections: the library would read every id there is to check them."""
        return []

    def _do_file_export(
        self,
        file_format: Any,
        request: HttpRequest,
        queryset: QuerySet[Any],
        export_form: Any = None,
    ) -> StreamingHttpResponse:
        """Send the file while it is written; the library would first put it together in memory."""
        resource = self.choose_export_resource_class(export_form, request)()
        name = self.get_export_filename(request, queryset, file_format)
        return StreamingHttpResponse(
            _lines(resource, queryset),
            content_type=file_format.get_content_type(),
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )


def _lines(resource: Resource, rows: QuerySet[Any]) -> Iterator[str]:
    yield _csv([resource.get_export_headers()])
    for chunk in in_chunks(rows):
        yield _csv(map(resource.export_resource, chunk))


def _csv(rows: Iterable[list[str]]) -> str:
    text = StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
