"""What the product admin asks for."""

from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any, ClassVar
from uuid import uuid4

from django import forms
from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from products_project.products.admin.history import became, changes
from products_project.products.admin.stock import LOW_STOCK
from products_project.products.models import Product, StockMovement
from servicekit.backoffice.display import counted
from servicekit.backoffice.money import MoneyField, money
from servicekit.contracts.fields import MAX_INT32, MAX_JSON_INTEGER

Reason = StockMovement.Reason

_AMOUNTS: dict[str, forms.Field] = {
    "percent": forms.IntegerField(min_value=-99, max_value=1000),
    "to": MoneyField(minimum=1, maximum=MAX_JSON_INTEGER),
}


class ProductForm(forms.ModelForm[Product]):
    """Takes what the API takes, and says what is wrong beside the field."""

    price = MoneyField(minimum=1, maximum=MAX_JSON_INTEGER)

    class Meta:
        model = Product
        fields = ["name", "price", "low_stock", "qty"]
        help_texts: ClassVar[dict[str, str]] = {
            "low_stock": f"Stock counts as low at this many units or fewer. Default: {LOW_STOCK}."
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Of an existing product the stock is not asked for, and of an archived one nothing is.
        if "qty" in self.fields:
            self.fields["qty"].validators += [MinValueValidator(0), MaxValueValidator(MAX_INT32)]
        for field in self.fields.values():
            # The page sends back what it showed.
            field.show_hidden_initial = not self.instance._state.adding  # noqa: SLF001 - Django documents it

    def shown(self) -> dict[str, object]:
        """Return the values that the page showed when it was opened."""
        shown = {}
        for name, field in self.fields.items():
            value = self.data.get(self[name].html_initial_name)
            if value is not None:
                # What the page cannot have shown differs from whatever there is.
                with suppress(forms.ValidationError):
                    value = field.to_python(value)
                shown[name] = value
        return shown

    def changes(self) -> str:
        """Return what is different from what there was, in words."""
        return changes(self.initial, self.cleaned_data)


class StockForm(forms.Form):
    """Asks how many units come or go, and why; of one product, not more than are `in_stock`."""

    delta = forms.IntegerField(
        label="Units",
        min_value=-MAX_INT32,
        max_value=MAX_INT32,
        widget=UnfoldAdminIntegerFieldWidget(attrs={"placeholder": "50 or -3"}),
        help_text="A negative number removes units.",
    )
    reason = forms.ChoiceField(
        choices=[(Reason.RESTOCK, "Restock"), (Reason.CORRECTION, "Correction")],
        widget=UnfoldAdminSelectWidget,
    )
    # The same page sent twice, by a second click, moves them once.
    key = forms.UUIDField(initial=uuid4, widget=forms.HiddenInput)

    def __init__(self, *args: Any, in_stock: int | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_stock = in_stock

    def clean_delta(self) -> int:
        """Refuse what moves nothing, and what there is not, while one can still correct it."""
        delta = int(self.cleaned_data["delta"])
        if not delta:
            raise forms.ValidationError("Enter how many units to add or remove.")
        if self._in_stock is not None and self._in_stock + delta < 0:
            raise forms.ValidationError(f"Only {counted(self._in_stock, 'is', 'are')} in stock.")
        return delta


class PriceForm(forms.Form):
    """Asks how prices are to change; valid once the new ones have been seen as they would be."""

    way = forms.ChoiceField(
        label="Change",
        choices=[("percent", "By a percentage"), ("to", "To a fixed price")],
        widget=UnfoldAdminSelectWidget,
    )
    amount = forms.CharField(
        widget=UnfoldAdminTextInputWidget(
            attrs={"placeholder": "5 or -10", "inputmode": "decimal"}
        ),
        help_text=f"A whole percentage, or a price in {settings.CURRENCY}.",
    )

    def __init__(self, *args: Any, products: Sequence[Product], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._products = products
        self.preview = SafeString()
        """The old and new prices, once it is known how they change."""

    def clean(self) -> dict[str, Any]:
        """Show the new prices; refuse to change any that were not shown before."""
        cleaned: dict[str, Any] = super().clean() or {}
        if len(cleaned) < len(self.fields):
            return cleaned
        try:
            cleaned["amount"] = _AMOUNTS[cleaned["way"]].clean(cleaned["amount"])
        except forms.ValidationError as error:
            self.add_error("amount", error)
        else:
            self._look(seen=self.data.get("seen", ""))
        return cleaned

    def _look(self, *, seen: str) -> None:
        rows = {}
        for each in self._products:
            price, why_not = self.new_price(each)
            stays = f"{money(each.price)} (stays: {why_not})"
            note = stays if why_not else became(each.price, price, money)
            rows[str(each.pk)] = (each.name, note)
        would_be = sha256(repr(rows).encode()).hexdigest()
        self.preview = format_html(
            '{}<input type="hidden" name="seen" value="{}">',
            render_to_string(
                "unfold/components/table.html",
                {
                    "table": {"headers": ["Product", "Price"], "rows": list(rows.values())},
                    "class": "mb-6",
                },
            ),
            would_be,
        )
        if seen != would_be:
            self.add_error(None, "These are not the prices that were seen.")

    def new_price(self, product: Product) -> tuple[int, str]:
        """Return what a product would cost, and why it will not, if so."""
        amount = self.cleaned_data["amount"]
        percent = 100 + amount
        is_by_percent = self.cleaned_data["way"] == "percent"
        price = (product.price * percent + 50) // 100 if is_by_percent else amount
        if product.archived_at is not None:
            return price, "archived"
        if not 1 <= price <= MAX_JSON_INTEGER:
            return price, "no such price is possible"
        return price, "already at this price" if price == product.price else ""
