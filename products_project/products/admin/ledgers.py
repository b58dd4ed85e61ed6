"""The two ledgers that explain every stock, for reading."""

from typing import Any
from urllib.parse import quote
from uuid import UUID

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString

from products_project.products.models import Reservation, StockMovement
from servicekit.backoffice.display import Tone, badge, code, column, link, moment, number, short
from servicekit.backoffice.elsewhere import page_link
from servicekit.backoffice.filters import AmongNewest, TimeRange
from servicekit.backoffice.ledgers import LedgerAdmin

ORDERS = "orders/order"
_OUTCOMES: dict[str, Tone] = {
    Reservation.Outcome.RESERVED: "success",
    Reservation.Outcome.REJECTED: "danger",
    Reservation.Outcome.RELEASED: "",
    Reservation.Outcome.CANCELLED: "",
}


def _product(product_id: UUID, shown: SafeString) -> SafeString:
    return link(reverse("admin:products_product_change", args=[product_id]), shown)


def _wanted_product(reservation: Reservation) -> SafeString:
    product = code(reservation.product_id)
    is_unknown = reservation.reason == "product_not_found"
    return product if is_unknown else _product(reservation.product_id, product)


def results(order_id: str) -> list[SafeString]:
    """Return what is stored about the order of a dead letter: its reservation, its movements."""
    query = f"?q={quote(order_id)}"
    reservations = reverse("admin:products_reservation_changelist") + query
    movements = reverse("admin:products_stockmovement_changelist") + query
    return [
        *(
            link(reservations, f"Reservation {each}")
            for each in Reservation.objects.filter(order_id=order_id)
        ),
        *(
            link(movements, f"Stock movement {each}")
            for each in StockMovement.objects.filter(order_id=order_id)
        ),
    ]


class FoundByOrder(LedgerAdmin):
    """A ledger in which one looks for an order by its whole id, which an index finds."""

    search_fields = ["order_id"]
    search_help_text = "The id of an order"

    def matching(self, request: HttpRequest, rows: QuerySet[Any], term: str) -> QuerySet[Any]:  # noqa: ARG002 - of all lists
        """Find the rows of one order."""
        return rows.filter(order_id=term)


@admin.register(StockMovement)
class StockMovementAdmin(FoundByOrder):
    """Every change of every stock."""

    list_display = ["created", "product_link", "change", "left", "reason", "order"]
    list_filter = [("reason", AmongNewest)]
    list_select_related = ["product"]
    ordering = ["-id"]

    created = column("time, UTC", lambda movement: moment(movement.created_at), sorts_by="id")
    product_link = column(
        "product", lambda movement: _product(movement.product_id, short(movement.product))
    )
    change = column("change", lambda movement: number(movement.delta, signed=True))
    left = column("stock after", lambda movement: number(movement.qty_after))
    order = column("order", lambda movement: page_link(movement, ORDERS, movement.order_id or "—"))


@admin.register(Reservation)
class ReservationAdmin(FoundByOrder):
    """What was decided about each order."""

    list_display = ["created", "outcome_badge", "units", "before", "why", "product", "order"]
    list_filter = [("outcome", AmongNewest), ("created_at", TimeRange)]
    list_filter_submit = True
    ordering = ["-created_at"]

    created = column(
        "time, UTC", lambda reservation: moment(reservation.created_at), sorts_by="created_at"
    )
    outcome_badge = column(
        "outcome",
        lambda reservation: badge(
            reservation.get_outcome_display(), _OUTCOMES[reservation.outcome]
        ),
    )
    units = column("wanted", lambda reservation: number(reservation.quantity))
    before = column("stock before", lambda reservation: number(reservation.stock_before))
    why = column("reason", lambda reservation: reservation.reason.replace("_", " ") or "—")
    product = column("product", _wanted_product)
    order = column(
        "order",
        lambda reservation: (
            code(reservation.order_id)
            if reservation.is_foreign
            else page_link(reservation, ORDERS, reservation.order_id)
        ),
    )
