"""Parameters in a query string."""

from collections.abc import Mapping

from rest_framework.exceptions import ValidationError

_MAX_DIGITS = 9


def integer(
    query: Mapping[str, str], name: str, *, default: int, minimum: int, maximum: int
) -> int:
    """Return an integer parameter, `default` without it.

    :raises ValidationError: if it is anything else, or out of bounds
    """
    text = query.get(name)
    if text is None:
        return default
    # isdecimal alone also takes foreign digits, and int() reads novels.
    is_number = text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
    if not (is_number and minimum <= int(text) <= maximum):
        raise ValidationError({name: [f"Must be an integer from {minimum} to {maximum}."]})
    return int(text)
