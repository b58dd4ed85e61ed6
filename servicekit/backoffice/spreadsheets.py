"""CSV files, which people open in spreadsheets."""

import re
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from import_export.admin import ExportMixin
from import_export.formats.base_formats import CSV
from import_export.widgets import CharWidget
from unfold.contrib.import_export.forms import ExportForm

EXPORT_LIMIT = 10_000

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


class BoundedExport(ExportMixin):
    """Exports the newest rows of a list as it is filtered, to those who may see them."""

    formats = [CSV]
    export_form_class = ExportForm
    export_template_name = "backoffice/export.html"
    export_hint = ""

    def has_export_permission(self, request: HttpRequest) -> bool:
        """Allow it to those who may see the same on pages."""
        return bool(self.has_view_permission(request))

    def get_export_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Take no more than `EXPORT_LIMIT`."""
        rows: QuerySet[Any] = super().get_export_queryset(request)
        return rows[:EXPORT_LIMIT]

    def get_export_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Say how far an export goes."""
        context = super().get_export_context_data(**kwargs)
        return {**context, "limit": f"{EXPORT_LIMIT:,}", "hint": self.export_hint}

    def get_valid_export_item_pks(self, request: HttpRequest) -> list[Any]:  # noqa: ARG002 - import-export's signature
        """Refuse selections: the library would read every id there is to check them."""
        return []
