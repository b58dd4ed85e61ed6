"""Amounts as people read and type them: `1,900.00 EUR`. Everywhere else they are integers."""

import re
from decimal import Context, Decimal
from typing import Any

from django import forms
from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from unfold.widgets import UnfoldAdminTextInputWidget

# Sums have up to 40 digits, of which Python would keep 28.
_EXACT = Context(prec=40)
# A comma that is not between thousands may be meant for the decimals.
_AMOUNT = re.compile(r"-?(\d{1,20}|\d{1,3}(,\d{3}){1,6})(\.\d{1,9})?", re.ASCII)


def money(amount: int) -> str:
    """Return an amount of the currency's smallest unit with its currency."""
    return f"{_in_units(amount):,f} {settings.CURRENCY}"


class MoneyField(forms.Field):
    """Asks for an amount, `1900` or `1,900.00`; its value is in the currency's smallest unit."""

    def __init__(self, *, minimum: int, maximum: int, **options: Any) -> None:
        super().__init__(
            widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"}),
            help_text=f"In {settings.CURRENCY}, for example {_in_units(190_000):,f}.",
            validators=[
                MinValueValidator(minimum, f"Must be at least {money(minimum)}."),
                MaxValueValidator(maximum, f"Must be at most {money(maximum)}."),
            ],
            **options,
        )

    def prepare_value(self, value: Any) -> Any:
        """Return what the form shows: a whole number is an amount, and text what was typed."""
        return f"{_in_units(value):f}" if isinstance(value, int) else value

    def to_python(self, value: Any) -> int | None:
        """Read what was typed.

        :raises ValidationError: if it is no amount, or has more decimals than the currency
        """
        if value in self.empty_values:
            return None
        if isinstance(value, int):
            return value
        if _AMOUNT.fullmatch(text := str(value).strip()):
            amount = Decimal(text.replace(",", "")).scaleb(settings.CURRENCY_DIGITS)
            if amount == int(amount):
                return int(amount)
        raise forms.ValidationError(
            f"Enter an amount with at most {settings.CURRENCY_DIGITS} decimals, such as"
            f" {_in_units(190_000)}."
        )


def _in_units(amount: int) -> Decimal:
    return Decimal(amount).scaleb(-settings.CURRENCY_DIGITS, _EXACT)
