"""What was changed, in the words of a product's history."""

from collections.abc import Mapping

_LABELS = {"name": "name", "price": "price", "low_stock": "low stock at"}


def became(before: object, after: object) -> str:
    """Return `1,900 → 2,100`."""
    return " → ".join(
        f"{value:,}" if isinstance(value, int) else "—" if value is None else str(value)
        for value in (before, after)
    )


def changes(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    """Return what is different, both ways: `price 1,900 → 2,100, name Lamp → Torch`."""
    return ", ".join(
        f"{label} {became(before[field], after[field])}"
        for field, label in _LABELS.items()
        if field in after and before[field] != after[field]
    )
