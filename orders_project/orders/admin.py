"""Orders, for the people who run the shop."""

from django.contrib import admin

from orders_project.orders.models import Order
from servicekit.administration import LedgerAdmin


@admin.register(Order)
class OrderAdmin(LedgerAdmin):
    """Orders and what became of them. Only services change them."""

    list_display = [
        "id",
        "status",
        "quantity",
        "total_price",
        "product_id",
        "created_at",
        "settled_at",
        "reason",
    ]
    list_filter = ["status"]
    search_fields = ["=id", "=product_id"]
    ordering = ["-id"]
