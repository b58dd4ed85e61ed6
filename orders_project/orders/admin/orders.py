"""Orders, for the people who run the shop."""

from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.safestring import SafeString
from import_export.admin import ExportMixin
from import_export.fields import Field
from import_export.formats.base_formats import CSV
from import_export.resources import ModelResource
from unfold.contrib.import_export.forms import ExportForm
from unfold.decorators import action
from unfold.enums import ActionVariant

from orders_project.orders import selectors, services
from orders_project.orders.models import Order
from servicekit.backoffice.actions import ServiceAdmin, confirmed, report
from servicekit.backoffice.display import (
    Tone,
    badge,
    clock,
    code,
    link,
    moment,
    number,
    second,
    short,
    span,
)
from servicekit.backoffice.filters import TimeRange
from servicekit.backoffice.ledgers import LedgerAdmin
from servicekit.backoffice.spreadsheets import Text

Status = Order.Status

EXPORT_LIMIT = 10_000

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


class OrderExport(ModelResource):
    """The columns of an export, named as in the API."""

    reason = Field("reason", "reason", widget=Text())
    product_name = Field("product_name", "product_name", widget=Text())
    unit_price = Field("unit_price", "unit_price", readonly=True)

    class Meta:
        model = Order
        fields = (
            *("id", "product_id", "product_name", "quantity", "unit_price", "total_price"),
            *("status", "reason", "created_at", "settled_at"),
        )
        export_order = fields
        # Rows are fetched as they are written.
        chunk_size = 1000


@admin.register(Order)
class OrderAdmin(ExportMixin, LedgerAdmin, ServiceAdmin):
    """Orders and what became of them. Only services change them."""

    resource_classes = [OrderExport]
    formats = [CSV]
    export_form_class = ExportForm
    export_template_name = "orders/export.html"

    list_display = [
        *("short_id", "status_badge", "product", "units", "price", "total", "since", "took"),
    ]
    list_filter = ["status", ("created_at", TimeRange)]
    search_fields = ["id", "product_id"]
    search_help_text = "The id of an order, or of a product for its orders"
    ordering = ["-created_at", "-id"]
    empty_text = "No orders yet. They appear here a moment after they are accepted."
    sortable_by = ()
    actions = ["cancel_selected", "announce_selected"]
    actions_detail = ["cancel", "announce"]
    change_form_before_template = "orders/timeline.html"
    fieldsets = [
        (
            None,
            {
                "fields": [
                    "id", "status_badge", "reason_text", "product", "product_id", "units", "price",
                    "total", "created", "settled",
                ]
            },
        )
    ]  # fmt: skip
    readonly_fields = [
        *("id", "status_badge", "reason_text", "product", "product_id", "units", "price"),
        *("total", "created", "settled"),
    ]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Order], search_term: str
    ) -> tuple[QuerySet[Order], bool]:
        """Find by exact id, which has an index."""
        if not search_term.strip():
            return queryset, False
        try:
            wanted = UUID(search_term.strip())
        except ValueError:
            messages.warning(
                request,
                f"“{search_term}” is not a valid id. Enter the whole id of an order or product.",
            )
            return queryset.none(), False
        # Not both at once: PostgreSQL may then read its way through the newest orders.
        if Order.objects.filter(id=wanted).exists():
            return queryset.filter(id=wanted), False
        return queryset.filter(product_id=wanted), False

    # Columns and facts

    @admin.display(description="order")
    def short_id(self, order: Order) -> SafeString:
        """The whole id: people compare it, and search for it."""
        return code(order.id)

    @admin.display(description="status")
    def status_badge(self, order: Order) -> SafeString:
        """What became of it."""
        return badge(order.get_status_display(), STATUS_TONES[order.status])

    @admin.display(description="reason")
    def reason_text(self, order: Order) -> str:
        """Why it was refused."""
        return order.reason.replace("_", " ") or "—"

    @admin.display(description="units")
    def units(self, order: Order) -> str:
        """How many."""
        return number(order.quantity)

    @admin.display(description="price")
    def price(self, order: Order) -> str:
        """What a unit was sold at, in the currency's smallest unit."""
        return number(order.unit_price)

    @admin.display(description="total")
    def total(self, order: Order) -> str:
        """The price of that moment times the quantity, in the currency's smallest unit."""
        return number(order.total_price)

    @admin.display(description="product")
    def product(self, order: Order) -> SafeString:
        """What it was called when it was sold, and a way to all orders of the same product."""
        address = reverse("admin:orders_order_changelist")
        text = short(order.product_name) if order.product_name else code(order.product_id)
        return link(f"{address}?q={order.product_id}", text)

    @admin.display(description="created, UTC")
    def created(self, order: Order) -> str:
        """When it was accepted."""
        return moment(order.created_at)

    @admin.display(description="created, UTC")
    def since(self, order: Order) -> str:
        """When it was accepted, for the list."""
        return second(order.created_at)

    @admin.display(description="settled, UTC")
    def settled(self, order: Order) -> str:
        """When its outcome was known."""
        return moment(order.settled_at)

    @admin.display(description="took")
    def took(self, order: Order) -> str:
        """How long its client had to wait for the outcome."""
        if order.settled_at is None:
            return "—"
        return span((order.settled_at - order.created_at) // timedelta(milliseconds=1))

    # One order

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Show one order and its way."""
        order = self.get_object(request, object_id)
        extra = {"timeline": order and _drawn(order)}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **extra})

    # Export

    def has_export_permission(self, request: HttpRequest) -> bool:
        """Allow it to those who may see the same on pages."""
        return bool(self.has_view_permission(request))

    def get_export_queryset(self, request: HttpRequest) -> QuerySet[Order]:
        """Take the newest of what is filtered, and no more than `EXPORT_LIMIT`."""
        rows: QuerySet[Order] = super().get_export_queryset(request)
        return rows[:EXPORT_LIMIT]

    def get_export_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Say how far an export goes."""
        return {**super().get_export_context_data(**kwargs), "limit": f"{EXPORT_LIMIT:,}"}

    def get_valid_export_item_pks(self, request: HttpRequest) -> list[Any]:  # noqa: ARG002 - import-export's signature
        """Refuse selections: the library would read every id there is to check them."""
        return []

    # Decisions

    def has_operate_permission(self, request: HttpRequest, object_id: Any = None) -> bool:  # noqa: ARG002 - unfold's signature
        """Allow it to those who may change orders, although nobody edits one."""
        return bool(request.user.has_perm("orders.change_order"))

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Offer what the order's status allows."""
        order = self.get_object(request, str(object_id))
        offered = {"cancel": order is not None and order.status in _CANCELLABLE,
                   "announce": order is not None and order.status == Status.PENDING}  # fmt: skip
        return [
            each for each in super().get_actions_detail(request, object_id) if offered[each.path]
        ]

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
        )
        if isinstance(answer, HttpResponse):
            return answer
        cancelled, left = [], Counter[str]()
        for order in rows:
            if order.status == Status.CANCELLED:
                left["already cancelled"] += 1
                continue
            try:
                cancelled.append(services.cancel_order(order.id))
            except services.OrderIsRejected:
                left["rejected before"] += 1
            except (selectors.OrderNotFound, selectors.OrderNotVisibleYet):
                left["not found"] += 1
        report(self, request, done="cancelled", rows=cancelled, left=left)
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


_CANCELLABLE = {Status.PENDING, Status.CONFIRMED}


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
            + ([["Waiting for stock", "", ""]] if order.status == Status.PENDING else []),
        },
    }
