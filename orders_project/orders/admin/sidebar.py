"""The sidebar of the order service's admin."""

from typing import Any

from django.http import HttpRequest

from servicekit.overview.navigation import Entry, sections


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """Return its sections."""
    return sections(request, "Orders", [Entry("Orders", "shopping_bag", "orders", "order")])
