"""Products and their stock, for the people who run the shop."""

from typing import Any

from django.contrib import admin
from django.forms import ModelForm
from django.http import HttpRequest
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.views.decorators.csrf import csrf_protect

from products_project.products import services
from products_project.products.models import Product, Reservation, StockMovement
from servicekit.administration import BoundedPaginator, LedgerAdmin


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin[Product]):
    """Products. What is saved here takes the same way as through the API: event, cache and all."""

    list_display = ["name", "price", "qty", "created_at", "id"]
    search_fields = ["name", "id"]
    ordering = ["-id"]
    paginator = BoundedPaginator
    show_full_result_count = False

    def get_readonly_fields(self, request: HttpRequest, obj: Product | None = None) -> list[str]:  # noqa: ARG002 - Django's signature
        """Stock is set once; afterwards only movements change it."""
        return ["id", "qty", "version", "created_at", "ledger"] if obj else []

    def get_fields(self, request: HttpRequest, obj: Product | None = None) -> list[Any]:
        """Show what there is to say: of a new product only what is asked for."""
        asked = ["name", "price", "qty"]
        return asked + [f for f in self.get_readonly_fields(request, obj) if f not in asked]

    def save_model(
        self,
        request: HttpRequest,  # noqa: ARG002 - Django's signature
        obj: Product,
        form: ModelForm[Product],  # noqa: ARG002 - Django's signature
        change: bool,  # noqa: FBT001 - Django's signature
    ) -> None:
        """Save through the services, which record the event and write the cache."""
        saved = (
            services.update_product(obj.id, name=obj.name, price=obj.price)
            if change
            else services.create_product(name=obj.name, price=obj.price, qty=obj.qty)
        )
        # The admin goes on with its own instance: to the log entry and the success message.
        obj.pk, obj.version = saved.pk, saved.version

    @method_decorator(csrf_protect)
    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Show or save the form, outside of the transaction that Django would open around it.

        The services commit by themselves, and only then write the cache.
        """
        return self._changeform_view(request, object_id, form_url, extra_context)  # type: ignore[attr-defined]  # what Django's own calls inside its transaction

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - Django's signature
        """Nobody deletes a product: its orders and movements refer to it."""
        return False

    @admin.display(description="movements")
    def ledger(self, product: Product) -> str:
        """Link to every change of this product's stock."""
        address = reverse("admin:products_stockmovement_changelist")
        return format_html('<a href="{}?product__id__exact={}">Show all</a>', address, product.pk)


@admin.register(StockMovement)
class StockMovementAdmin(LedgerAdmin):
    """Every change of every stock."""

    list_display = ["created_at", "product", "delta", "reason", "order_id"]
    list_filter = ["reason"]
    list_select_related = ["product"]
    search_fields = ["=order_id"]
    ordering = ["-id"]


@admin.register(Reservation)
class ReservationAdmin(LedgerAdmin):
    """What was decided about each order."""

    list_display = ["order_id", "product_id", "quantity", "outcome", "reason", "created_at"]
    list_filter = ["outcome"]
    search_fields = ["=order_id"]
    ordering = ["-created_at"]
