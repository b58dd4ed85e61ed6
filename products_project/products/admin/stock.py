"""How much stock is little."""

from django.db.models import F, Q
from django.utils.safestring import SafeString

from servicekit.backoffice.display import Tone, badge

LOW_STOCK = 10
"""From here down, a product is running low, unless its `low_stock` says from where."""

# Not COALESCE: of that, the planner thinks that it is true of every third product.
IS_LOW = Q(low_stock=None, qty__lte=LOW_STOCK) | Q(low_stock__isnull=False, qty__lte=F("low_stock"))
"""Which products run low, or are out."""


def low_stock_of(low_stock: int | None) -> int:
    """Return from where down a product is running low, of which the database says this."""
    return LOW_STOCK if low_stock is None else low_stock


def stock_tone(qty: int, low_stock: int | None) -> Tone:
    """Return how good it is to have this many."""
    return "danger" if not qty else "warning" if qty <= low_stock_of(low_stock) else "success"


def stock_badge(qty: int, low_stock: int | None) -> SafeString:
    """Return it in a word."""
    tone = stock_tone(qty, low_stock)
    return badge({"danger": "Out of stock", "warning": "Low stock"}.get(tone, "In stock"), tone)
