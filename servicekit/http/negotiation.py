"""Which representation a caller gets."""

from collections.abc import Iterable
from typing import Any

from django.http import Http404
from rest_framework.exceptions import NotAcceptable
from rest_framework.negotiation import DefaultContentNegotiation


class ContentNegotiation(DefaultContentNegotiation):
    """DRF's, but a `format` that there is not is 406, as with `Accept`, and no 404."""

    def filter_renderers(self, renderers: Iterable[Any], format: str) -> list[Any]:  # noqa: A002 - DRF's name
        """Return the renderers of a format.

        :raises NotAcceptable: if there is none
        """
        available = list(renderers)
        try:
            return list(super().filter_renderers(available, format))
        except Http404 as error:
            raise NotAcceptable(available_renderers=available) from error
