"""How much stock is little."""

from django.utils.safestring import SafeString

from servicekit.backoffice.display import Tone, badge

LOW_STOCK = 10
"""From here down, a product is running low."""


def stock_tone(qty: int) -> Tone:
    """Return how good it is to have this many."""
    return "danger" if not qty else "warning" if qty <= LOW_STOCK else "success"


def stock_badge(qty: int) -> SafeString:
    """Return it in a word."""
    return badge(
        "Out of stock" if not qty else "Low stock" if qty <= LOW_STOCK else "In stock",
        stock_tone(qty),
    )
