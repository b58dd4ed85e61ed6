"""What was changed, in the words of a product's history."""

from collections.abc import Mapping

_LABELS = {"name": "name", "price": "price", "low_stock": "low stock at"}


def shown(value: object) -> str:
    """Return a value as people read it."""
    return f"{value:,}" if isinstance(value, int) else "—" if value is None else str(value)


def became(before: object, after: object) -> str:
    """Return `1,900 → 2,100`."""
    return f"{shown(before)} → {shown(after)}"


def changes(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    """Return what is different, both ways: `price 1,900 → 2,100, name Lamp → Torch`."""
    return ", ".join(
        f"{label} {became(before[field], after[field])}"
        for field, label in _LABELS.items()
        if field in after and before[field] != after[field]
    )
