"""The two ledgers that explain every stock, for reading."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString

from products_project.products.models import Reservation, StockMovement
from servicekit.backoffice.display import Tone, badge, code, link, moment, number, short
from servicekit.backoffice.filters import AmongNewest, TimeRange
from servicekit.backoffice.ledgers import LedgerAdmin

_OUTCOMES: dict[str, Tone] = {
    Reservation.Outcome.RESERVED: "success",
    Reservation.Outcome.REJECTED: "danger",
    Reservation.Outcome.RELEASED: "",
    Reservation.Outcome.CANCELLED: "",
}


class FoundByOrder(LedgerAdmin):
    """A ledger in which one looks for an order by its whole id, which an index finds."""

    search_fields = ["order_id"]
    search_help_text = "The id of an order"
    sortable_by = ()

    def get_search_results(
        self,
        request: HttpRequest,  # noqa: ARG002 - Django's signature
        queryset: QuerySet[Any],
        search_term: str,
    ) -> tuple[QuerySet[Any], bool]:
        """Find the rows of one order."""
        term = search_term.strip()
        return (queryset.filter(order_id=term) if term else queryset), False


@admin.register(StockMovement)
class StockMovementAdmin(FoundByOrder):
    """Every change of every stock."""

    list_display = ["created", "product_link", "change", "left", "reason", "order"]
    list_filter = [("reason", AmongNewest)]
    list_select_related = ["product"]
    ordering = ["-id"]

    @admin.display(description="time, UTC")
    def created(self, movement: StockMovement) -> str:
        """When."""
        return moment(movement.created_at)

    @admin.display(description="product")
    def product_link(self, movement: StockMovement) -> SafeString:
        """Of what."""
        address = reverse("admin:products_product_change", args=[movement.product_id])
        return link(address, short(movement.product))

    @admin.display(description="change")
    def change(self, movement: StockMovement) -> str:
        """How many came or went."""
        return number(movement.delta, signed=True)

    @admin.display(description="stock after")
    def left(self, movement: StockMovement) -> str:
        """How many there were afterwards."""
        return number(movement.qty_after)

    @admin.display(description="order")
    def order(self, movement: StockMovement) -> SafeString | str:
        """For which order, if for one."""
        return code(movement.order_id) if movement.order_id else "—"


@admin.register(Reservation)
class ReservationAdmin(FoundByOrder):
    """What was decided about each order."""

    list_display = ["created", "outcome_badge", "units", "before", "why", "product", "order"]
    list_filter = [("outcome", AmongNewest), ("created_at", TimeRange)]
    ordering = ["-created_at"]

    @admin.display(description="time, UTC")
    def created(self, reservation: Reservation) -> str:
        """When."""
        return moment(reservation.created_at)

    @admin.display(description="outcome")
    def outcome_badge(self, reservation: Reservation) -> SafeString:
        """The decision."""
        return badge(reservation.get_outcome_display(), _OUTCOMES[reservation.outcome])

    @admin.display(description="wanted")
    def units(self, reservation: Reservation) -> str:
        """How many were asked for."""
        return number(reservation.quantity)

    @admin.display(description="stock before")
    def before(self, reservation: Reservation) -> str:
        """How many there were."""
        return number(reservation.stock_before)

    @admin.display(description="reason")
    def why(self, reservation: Reservation) -> str:
        """Why not."""
        return reservation.reason.replace("_", " ") or "—"

    @admin.display(description="product")
    def product(self, reservation: Reservation) -> SafeString:
        """Of what, if that is there."""
        if reservation.reason == "product_not_found":
            return code(reservation.product_id)
        address = reverse("admin:products_product_change", args=[reservation.product_id])
        return link(address, code(reservation.product_id))

    @admin.display(description="order")
    def order(self, reservation: Reservation) -> SafeString:
        """For which order."""
        return code(reservation.order_id)
