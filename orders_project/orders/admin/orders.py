"""Orders, for the people who run the shop."""

from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from import_export.fields import Field
from import_export.resources import ModelResource
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminTextInputWidget

from orders_project.orders import selectors, services
from orders_project.orders.models import CANCEL_REASON_MAX_LENGTH, Order
from servicekit.backoffice.actions import ServiceAdmin, confirmed, report
from servicekit.backoffice.display import (
    Tone,
    badge,
    clock,
    code,
    column,
    counted,
    link,
    moment,
    number,
    second,
    short,
    span,
)
from servicekit.backoffice.elsewhere import address, icon_link, is_id, page_link
from servicekit.backoffice.filters import TimeRange
from servicekit.backoffice.ledgers import LedgerAdmin
from servicekit.backoffice.money import money
from servicekit.backoffice.spreadsheets import StreamedExport, Text

Status = Order.Status

STATUS_TONES: dict[str, Tone] = {
    Status.PENDING: "warning",
    Status.CONFIRMED: "success",
    Status.REJECTED: "danger",
    Status.CANCELLED: "",
}
_STEP_COLOURS = {
    **dict.fromkeys(("accepted", "stored", "announced"), "bg-blue-500"),
    **dict.fromkeys(("reserved", "settled"), "bg-green-500"),
    **dict.fromkeys(("cancelled", "released"), "bg-base-400"),
}


# As long as it is asked again for it.
_WAITS_FOR: dict[str, str] = {
    Status.PENDING: "Waiting for stock",
    Status.CANCELLED: "Waiting for its stock to be released",
}


class OrderExport(ModelResource):
    """The columns of an export, named as in the API."""

    reason = Field("reason", "reason", widget=Text())
    product_name = Field("product_name", "product_name", widget=Text())
    cancelled_by = Field("cancelled_by", "cancelled_by", widget=Text())
    cancel_reason = Field("cancel_reason", "cancel_reason", widget=Text())
    unit_price = Field("unit_price", "unit_price", readonly=True)

    class Meta:
        model = Order
        fields = (
            *("id", "product_id", "product_name", "quantity", "unit_price", "total_price"),
            *("status", "reason", "created_at", "settled_at"),
            *("cancelled_at", "cancelled_by", "cancel_reason"),
        )
        export_order = fields


class CancellationForm(forms.Form):
    """Asks why, of whoever wants to say so."""

    reason = forms.CharField(
        required=False,
        max_length=CANCEL_REASON_MAX_LENGTH,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "Why?"}),
        help_text="Optional. Shown with the order, here and in the API.",
    )


def _orders_alike(order: Order) -> SafeString:
    """Return what the product was called, a way to all orders of it, and one to its page."""
    orders = reverse("admin:orders_order_changelist")
    text = short(order.product_name) if order.product_name else code(order.product_id)
    page = address(f"products/product/{order.product_id}/change/", order.other_admin)  # type: ignore[attr-defined]  # of the list
    return format_html(
        '<span class="flex gap-2">{}{}</span>',
        link(f"{orders}?q={order.product_id}", text),
        icon_link(page, "Open the product"),
    )


def results(order_id: str) -> list[SafeString]:
    """Return the order that came of a dead letter, if there is one."""
    orders = Order.objects.filter(id=order_id) if is_id(order_id) else ()
    return [
        link(
            reverse("admin:orders_order_change", args=[each.id]), f"Order {each.id}: {each.status}"
        )
        for each in orders
    ]


def _waited(order: Order) -> str:
    """Return how long its client had to wait for the outcome."""
    if order.settled_at is None:
        return "—"
    return span((order.settled_at - order.created_at) // timedelta(milliseconds=1))


@admin.register(Order)
class OrderAdmin(StreamedExport, LedgerAdmin, ServiceAdmin):
    """Orders and what became of them. Only services change them."""

    resource_classes = [OrderExport]

    list_display = [
        *("short_id", "status_badge", "product", "units", "price", "total", "since", "took"),
    ]
    list_filter = ["status", ("created_at", TimeRange)]
    list_filter_submit = True
    search_fields = ["id", "product_id"]
    search_help_text = "The id of an order, or of a product for its orders"
    ordering = ["-created_at", "-id"]
    empty_text = "No orders yet. They appear here a moment after they are accepted."
    actions = ["cancel_selected", "announce_selected"]
    actions_detail = ["cancel", "announce"]
    change_form_before_template = "orders/timeline.html"
    readonly_fields = (
        *("id", "status_badge", "reason_text", "cancelled", "cancelled_by", "cancel_reason"),
        *("product", "product_page", "units", "price", "total", "created", "settled"),
    )

    def matching(self, request: HttpRequest, rows: QuerySet[Any], term: str) -> QuerySet[Any]:
        """Find by exact id, which has an index."""
        try:
            wanted = UUID(term)
        except ValueError:
            messages.warning(
                request, f"“{term}” is not a valid id. Enter the whole id of an order or product."
            )
            return rows.none()
        # Not both at once: PostgreSQL may then read its way through the newest orders.
        is_order = Order.objects.filter(id=wanted).exists()
        return rows.filter(id=wanted) if is_order else rows.filter(product_id=wanted)

    # Columns and facts

    # The whole id: people compare it, and search for it.
    short_id = column("order", lambda order: code(order.id))
    status_badge = column(
        "status", lambda order: badge(order.get_status_display(), STATUS_TONES[order.status])
    )
    reason_text = column("reason", lambda order: order.reason.replace("_", " "))
    units = column("units", lambda order: number(order.quantity))
    price = column("price", lambda order: money(order.unit_price))
    total = column("total", lambda order: money(order.total_price))
    product = column("product", _orders_alike)
    product_page = column(
        "product id", lambda order: page_link(order, "products/product", order.product_id)
    )
    created = column("created, UTC", lambda order: moment(order.created_at))
    since = column("created, UTC", lambda order: second(order.created_at), sorts_by="created_at")
    settled = column("settled, UTC", lambda order: moment(order.settled_at))
    cancelled = column("cancelled, UTC", lambda order: moment(order.cancelled_at))
    took = column("took", _waited)

    def get_fields(self, request: HttpRequest, obj: Order | None = None) -> list[Any]:  # noqa: ARG002 - Django's signature
        """Show what there is to say: of a refusal or a cancellation only where there was one."""
        hidden = "" if obj and obj.reason else "reason_text"
        is_cancelled = obj is not None and obj.cancelled_at is not None
        return [
            name
            for name in self.readonly_fields
            if name != hidden and (is_cancelled or "cancel" not in name)
        ]

    def _get_obj_does_not_exist_redirect(
        self, request: HttpRequest, _opts: Any, object_id: str
    ) -> HttpResponse:
        # Reached by links of the product service, which knows orders that this one does not.
        messages.warning(
            request,
            f"There is no order {object_id} here: it is not stored yet, or another system has"
            " placed it.",
        )
        return HttpResponseRedirect(reverse("admin:orders_order_changelist"))

    def beside(self, row: Order) -> dict[str, Any]:
        """Return an order's way."""
        return {"timeline": _drawn(row)}

    # Decisions

    def has_operate_permission(self, request: HttpRequest, object_id: Any = None) -> bool:  # noqa: ARG002 - unfold's signature
        """Allow it to those who may change orders, although nobody edits one."""
        return bool(request.user.has_perm("orders.change_order"))

    def named(self, row: Order) -> str:
        """Return its id, and what was ordered."""
        what = row.product_name or row.product_id
        return f"{row.id}: {counted(row.quantity, 'unit')} of {what}, {money(row.total_price)}"

    def offers(self, row: Order) -> list[str]:
        """Offer what the order's status allows."""
        return {Status.PENDING: ["cancel", "announce"], Status.CONFIRMED: ["cancel"]}.get(
            Status(row.status), []
        )

    @action(
        description="Cancel order", icon="close", variant=ActionVariant.DANGER,
        permissions=["operate"],
    )  # fmt: skip
    def cancel(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Cancel one order."""
        return self.ask_about(request, object_id, self.cancel_selected)

    @action(description="Announce again", icon="campaign", permissions=["operate"])
    def announce(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Announce one order again."""
        return self.ask_about(request, object_id, self.announce_selected)

    @admin.action(description="Cancel orders", permissions=["operate"])
    def cancel_selected(self, request: HttpRequest, rows: QuerySet[Order]) -> HttpResponse | None:
        """Cancel several orders."""
        answer = confirmed(
            self,
            request,
            rows,
            about_one="Cancel this order? Its units go back into stock.",
            about_many="Cancel {count:,} orders? Their units go back into stock.",
            button="Cancel order",
            leave="Keep order",
            form=CancellationForm(request.POST or None),
        )
        if isinstance(answer, HttpResponse):
            return answer
        by, reason = request.user.get_username(), answer.cleaned_data["reason"]
        cancelled, left = [], Counter[str]()
        for order in rows:
            if order.status == Status.CANCELLED:
                left["already cancelled"] += 1
                continue
            try:
                cancelled.append(services.cancel_order(order.id, by=by, reason=reason))
            except services.OrderIsRejected:
                left["rejected before"] += 1
            except (selectors.OrderNotFound, selectors.OrderNotVisibleYet):
                left["not found"] += 1
        report(self, request, done="cancelled", rows=cancelled, left=left, note=reason)
        return None

    @admin.action(description="Announce again", permissions=["operate"])
    def announce_selected(self, request: HttpRequest, rows: QuerySet[Order]) -> HttpResponse | None:
        """Announce several orders again."""
        answer = confirmed(
            self,
            request,
            rows,
            about_one="Announce this order again? It is decided once, so asking again is harmless.",
            about_many="Announce {count:,} orders again? Each is decided once, so asking again is"
            " harmless.",
            button="Announce again",
        )
        if isinstance(answer, HttpResponse):
            return answer
        orders = list(rows)
        waiting = [order for order in orders if order.recheck_at is not None]
        Order.objects.recheck_now([order.id for order in waiting])
        settled = len(orders) - len(waiting)
        left = {"already decided": settled} if settled else {}
        report(self, request, done="announced again", rows=waiting, left=left)
        return None


def _drawn(order: Order) -> dict[str, Any]:
    """Return an order's timeline as unfold's tracker and table take it."""
    steps = selectors.timeline(order)
    is_rejected = order.status == Status.REJECTED
    return {
        "tracker": [
            {
                "tooltip": f"{step.name.capitalize()}, {clock(step.at)}",
                "color": "bg-red-500"
                if step.name == "rejected" or (is_rejected and step.name == "settled")
                else _STEP_COLOURS.get(step.name, ""),
            }
            for step in steps
        ],
        "table": {
            "headers": ["Step", "Time, UTC", "After the step before"],
            "rows": [
                [
                    step.name.capitalize(),
                    moment(step.at),
                    "—" if step.since_previous_ms is None else span(step.since_previous_ms),
                ]
                for step in steps
            ]
            + ([[_WAITS_FOR.get(order.status, ""), "", ""]] if order.recheck_at else []),
        },
    }
