"""What was changed, in the words of a product's history."""

from collections.abc import Callable, Mapping
from typing import Any

from servicekit.backoffice.money import money


def shown(value: object) -> str:
    """Return a value as people read it."""
    return f"{value:,}" if isinstance(value, int) else "—" if value is None else str(value)


def became(before: Any, after: Any, show: Callable[[Any], str] = shown) -> str:
    """Return `1,900 → 2,100`."""
    return f"{show(before)} → {show(after)}"


_FIELDS = {"name": ("name", shown), "price": ("price", money), "low_stock": ("low stock at", shown)}


def changes(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    """Return what is different, both ways: `name Lamp → Torch, low stock at 5 → 10`."""
    return ", ".join(
        f"{label} {became(before[field], after[field], show)}"
        for field, (label, show) in _FIELDS.items()
        if field in after and before[field] != after[field]
    )
