"""Pages of lists, newest first.

A cursor names the last item of the page before, not a row number: a page neither repeats nor
skips when rows are added meanwhile, and the thousandth costs what the first costs.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from django.core.exceptions import ValidationError as Unreadable
from django.http import HttpRequest
from rest_framework.exceptions import ValidationError
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response

from servicekit.http.links import absolute
from servicekit.http.parameters import integer

DEFAULT_LIMIT = 50
MAX_LIMIT = 500

_NO_FILTERS = ("limit", "cursor", "format")

Position = TypeVar("Position")
"""Where an item stands in its list; written with `str`, read back by a function of the list's."""


@dataclass(frozen=True)
class PageRequest(Generic[Position]):
    """Which page: at most `limit` items that come after the position `after` (None: the top)."""

    limit: int = DEFAULT_LIMIT
    after: Position | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the page that everybody asks for, which is the one worth caching."""
        return self.limit == DEFAULT_LIMIT and self.after is None

    @classmethod
    def of(
        cls, query: Mapping[str, str], read: Callable[[str], Position]
    ) -> "PageRequest[Position]":
        """Read `limit` and `cursor` from a query string; `read` may raise ValueError.

        :raises ValidationError: if one of them is nonsense
        """
        limit = integer(query, "limit", default=DEFAULT_LIMIT, minimum=1, maximum=MAX_LIMIT)
        return cls(limit, _after(query.get("cursor"), read))


def _after(text: str | None, read: Callable[[str], Position]) -> Position | None:
    if text is None:
        return None
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        after = read(base64.urlsafe_b64decode(padded).decode("ascii"))
    except (binascii.Error, ValueError, OverflowError, Unreadable):
        after = None
    # The decoders skip what they do not know; we do not.
    if after is None or cursor_after(after) != text:
        raise ValidationError({"cursor": ["Not a cursor that came from a Link header."]})
    return after


def filters_in(query: Mapping[str, str]) -> dict[str, str]:
    """Return what a query string says beside the page and the format that it wants."""
    return {name: text for name, text in query.items() if name not in _NO_FILTERS}


def cursor_after(last: object) -> str:
    """Return the cursor of the page that follows the item at a position."""
    return base64.urlsafe_b64encode(str(last).encode()).rstrip(b"=").decode()


def link_header(request: HttpRequest, next_cursor: str) -> dict[str, str]:
    """Return the `Link` header (RFC 8288) to the next page, if there is one."""
    if not next_cursor:
        return {}
    query = {**request.GET.dict(), "cursor": next_cursor}
    return {"Link": f'<{absolute(request, request.path)}?{urlencode(query)}>; rel="next"'}


class NewestFirst(CursorPagination):
    """DRF's pages of what has ids that grow, with the limits, cursors and links of this module."""

    ordering = "-id"
    template = None  # the browsable API makes its pager of the header
    request: Request

    def paginate_queryset(
        self, queryset: Any, request: Request, view: Any = None
    ) -> list[Any] | None:
        """Return the items of the page that is asked for.

        :raises ValidationError: if limit or cursor are nonsense
        """
        read = queryset.model._meta.pk.to_python  # noqa: SLF001 - Django's name for what is public
        asked = PageRequest.of(request.query_params, read)
        self.page_size, self._after = asked.limit, asked.after
        return super().paginate_queryset(queryset, request, view)

    def decode_cursor(self, request: Request) -> Cursor | None:  # noqa: ARG002 - DRF's signature
        """Return the position that is asked for."""
        return None if self._after is None else Cursor(0, False, self._after)

    def encode_cursor(self, cursor: Cursor) -> str:
        """Return the cursor alone."""
        return cursor_after(cursor.position)

    def get_paginated_response(self, data: Any) -> Response:
        """Return the bare items, with a link to the next page if there is one."""
        return Response(data, headers=link_header(self.request, self.get_next_link() or ""))
