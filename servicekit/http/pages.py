"""Pages of lists that are ordered by id, newest first.

A cursor names the last item of the page before, not a row number: a page neither repeats nor
skips when rows are added meanwhile, and the thousandth costs what the first costs.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode
from uuid import UUID

from django.http import HttpRequest
from rest_framework.exceptions import ValidationError

DEFAULT_LIMIT = 50
MAX_LIMIT = 500


@dataclass(frozen=True)
class PageRequest:
    """Which page: at most `limit` items that come after the item `after` (None: from the top)."""

    limit: int = DEFAULT_LIMIT
    after: UUID | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the page that everybody asks for, which is the one worth caching."""
        return self == PageRequest()

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "PageRequest":
        """Read `limit` and `cursor` from a query string.

        :raises ValidationError: if one of them is nonsense
        """
        return cls(_limit(query.get("limit")), _after(query.get("cursor")))


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    # isdecimal alone also takes foreign digits.
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and 1 <= int(text) <= MAX_LIMIT):  # noqa: PLR2004 - spares int() a novel
        raise ValidationError({"limit": [f"Must be an integer from 1 to {MAX_LIMIT}."]})
    return int(text)


def _after(text: str | None) -> UUID | None:
    if text is None:
        return None
    try:
        after = UUID(bytes=base64.urlsafe_b64decode(text.encode("ascii") + b"=="))
    except (binascii.Error, ValueError):
        after = None
    # The decoder skips what it does not know; we do not.
    if after is None or cursor_after(after) != text:
        raise ValidationError({"cursor": ["Not a cursor that came from a Link header."]})
    return after


def cursor_after(last_id: UUID) -> str:
    """Return the cursor of the page that follows an item."""
    return base64.urlsafe_b64encode(last_id.bytes).rstrip(b"=").decode()


def link_header(request: HttpRequest, next_cursor: str) -> dict[str, str]:
    """Return the `Link` header (RFC 8288) to the next page, if there is one."""
    if not next_cursor:
        return {}
    query = {**request.GET.dict(), "cursor": next_cursor}
    return {"Link": f'<{request.build_absolute_uri(request.path)}?{urlencode(query)}>; rel="next"'}
