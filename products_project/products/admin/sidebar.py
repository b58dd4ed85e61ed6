"""The sidebar of the product service's admin."""

from typing import Any

from django.http import HttpRequest

from servicekit.overview.navigation import Entry, sections


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """Return its sections."""
    return sections(
        request,
        "Products and stock",
        [
            Entry("Products", "inventory_2", "products", "product"),
            Entry("Stock movements", "swap_vert", "products", "stockmovement"),
            Entry("Reservations", "bookmark_added", "products", "reservation"),
        ],
    )
