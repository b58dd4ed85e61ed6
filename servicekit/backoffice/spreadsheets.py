"""Text in CSV files, which people open in spreadsheets."""

import re
from typing import Any

from import_export.widgets import CharWidget

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
