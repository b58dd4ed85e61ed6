"""How much stock is little."""

from django.utils.safestring import SafeString

from products_project.products.models import LOW_STOCK
from servicekit.backoffice.display import Tone, badge


def stock_tone(qty: int) -> Tone:
    """Return how good it is to have this many."""
    return "danger" if not qty else "warning" if qty <= LOW_STOCK else "success"


def stock_badge(qty: int) -> SafeString:
    """Return it in a word."""
    return badge(
        "Out of stock" if not qty else "Low stock" if qty <= LOW_STOCK else "In stock",
        stock_tone(qty),
    )
