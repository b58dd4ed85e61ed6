"""Products and their stock, for the people who run the shop."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.forms import model_to_dict
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.safestring import SafeString
from import_export.admin import ImportExportMixin
from unfold.decorators import action
from unfold.enums import ActionVariant

from products_project.products import selectors, services
from products_project.products.admin.files import (
    FileIsGone,
    ProductCSV,
    ProductExport,
    ProductFileForm,
    ProductImport,
    UnreadableFile,
    UploadedFile,
)
from products_project.products.admin.forms import PriceForm, ProductForm, Reason, StockForm
from products_project.products.admin.history import became, changes
from products_project.products.admin.ledgers import ORDERS
from products_project.products.admin.stock import IS_LOW, stock_badge
from products_project.products.models import Product
from servicekit.backoffice.actions import ServiceAdmin, confirmed, report
from servicekit.backoffice.display import (
    badge,
    code,
    column,
    counted,
    link,
    moment,
    number,
    second,
    short,
)
from servicekit.backoffice.elsewhere import address, page_link
from servicekit.backoffice.ledgers import MAX_SELECTED, nobody
from servicekit.backoffice.money import money
from servicekit.backoffice.spreadsheets import StreamedExport

_SHOWN_MOVEMENTS = 20


class StockFilter(admin.SimpleListFilter):
    """By how much there is."""

    title = "stock"
    parameter_name = "stock"

    _CHOICES: ClassVar[dict[str | None, tuple[str, Q]]] = {
        "short": ("Low or out of stock", IS_LOW),
        "out": ("Out of stock", Q(qty=0)),
        "low": ("Low stock", IS_LOW & Q(qty__gt=0)),
        "ok": ("In stock", ~IS_LOW),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, str]]:  # noqa: ARG002 - Django's signature
        """Offer what the badges say."""
        return [(name, text) for name, (text, _) in self._CHOICES.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Product]) -> QuerySet[Product]:  # noqa: ARG002 - Django's signature
        """Keep the products that are sold and have that much."""
        if self.value() not in self._CHOICES:
            return queryset
        return queryset.filter(self._CHOICES[self.value()][1], archived_at=None)


class ArchivedFilter(admin.SimpleListFilter):
    """By whether it is still sold."""

    title = "for sale"
    parameter_name = "sold"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002 - Django's signature
        """Offer both."""
        return [("yes", "For sale"), ("no", "Archived")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Product]) -> QuerySet[Product]:  # noqa: ARG002 - Django's signature
        """Keep one kind."""
        if self.value() not in {"yes", "no"}:
            return queryset
        return queryset.filter(archived_at__isnull=self.value() == "yes")


class _Left(Exception):
    """A product stays as it is; says why."""


_WHY_LEFT: dict[type[Exception], str] = {
    _Left: "",
    selectors.ProductIsArchived: "archived",
    services.StockBelowZero: "there is less in stock",
    services.StockTooLarge: "there would be too much in stock",
    services.IdempotencyKeyReused: "updated from the same page before",
    services.VersionMismatch: "changed meanwhile",
}


def _orders_of(product: Any) -> SafeString | str:
    """Return a way to a product's orders, where the other admin can be reached."""
    orders = address(f"orders/order/?q={product.id}", product.other_admin)
    return link(orders, "Show orders") if orders else "—"


@admin.register(Product)
class ProductAdmin(StreamedExport, ImportExportMixin, ServiceAdmin):
    """Products. What is saved here takes the same way as through the API: event, cache and all."""

    form = ProductForm
    list_display = [
        "short_name",
        "stock",
        "in_stock",
        "price_text",
        "since",
        "short_id",
    ]
    list_filter = [StockFilter, ArchivedFilter]
    search_fields = ["name", "id"]
    search_help_text = "A part of the name, or the whole id"
    ordering = ["-id"]
    empty_text = "No products yet. Add one, or import a file of them."
    actions = [
        "restock_selected",
        "change_price_selected",
        "archive_selected",
        "put_back_selected",
    ]
    actions_row = ["restock"]
    actions_detail = ["restock", "archive", "put_back"]
    change_form_outer_after_template = "products/movements.html"

    resource_classes = [ProductExport]
    formats = [ProductCSV]
    export_hint = "The file can be imported again."
    import_form_class = ProductFileForm
    import_template_name = "products/import.html"
    tmp_storage_class = UploadedFile

    # The list

    def matching(self, request: HttpRequest, rows: QuerySet[Any], term: str) -> QuerySet[Any]:  # noqa: ARG002 - of all lists
        """Find by exact id, or by a part of the name."""
        try:
            return rows.filter(id=UUID(term))
        except ValueError:
            return rows.filter(name__icontains=term)

    short_name = column("name", lambda product: short(product.name))
    stock = column(
        "stock",
        lambda product: (
            stock_badge(product.qty, product.low_stock)
            if product.archived_at is None
            else badge("archived", "")
        ),
    )
    in_stock = column("units", lambda product: number(product.qty))
    price_text = column("price", lambda product: money(product.price))
    since = column("created, UTC", lambda product: second(product.created_at), sorts_by="id")
    created = column("created, UTC", lambda product: moment(product.created_at))
    archived = column("archived, UTC", lambda product: moment(product.archived_at))
    # The whole id: people order by it.
    short_id = column("id", lambda product: code(product.id))

    orders = column("orders", _orders_of)

    # One product

    def get_readonly_fields(self, request: HttpRequest, obj: Product | None = None) -> list[str]:  # noqa: ARG002 - Django's signature
        """Stock is set once; afterwards only movements change it."""
        facts = ["stock", "in_stock", "short_id", "orders", "version", "created", "archived"]
        return facts if obj else []

    def get_fieldsets(self, request: HttpRequest, obj: Product | None = None) -> Any:
        """Show what there is to say: of a new product only what is asked for."""
        if obj is None:
            return [(None, {"fields": ["name", "price", "qty", "low_stock"]})]
        facts = ["low_stock", "short_id", "orders", ("created", "archived"), "version"]
        # What is only read is not shown by the form, which knows of currencies.
        price = "price" if self.has_change_permission(request, obj) else "price_text"
        return [(None, {"fields": ["name", price, ("in_stock", "stock"), *facts]})]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """What is archived stays as it was."""
        may = bool(super().has_change_permission(request, obj))
        return may and (not isinstance(obj, Product) or obj.archived_at is None)

    # The orders and movements of a product refer to it.
    has_delete_permission = nobody

    def construct_change_message(
        self,
        request: HttpRequest,
        form: Any,
        formsets: Any,
        add: bool = False,  # noqa: FBT001, FBT002 - Django's signature
    ) -> Any:
        """Tell the history what was changed from what to what."""
        if add:
            return super().construct_change_message(request, form, formsets, add)
        return f"Changed: {form.changes()}" if form.changes() else "Nothing was changed."

    def save_model(
        self,
        request: HttpRequest,  # noqa: ARG002 - Django's signature
        obj: Product,
        form: Any,
        change: bool,  # noqa: FBT001 - Django's signature
    ) -> None:
        """Save through the services, which record the event and write the cache."""
        facts: dict[str, Any] = {
            each: getattr(obj, each) for each in ("name", "price", "low_stock")
        }
        saved = (
            services.update_product(obj.id, **facts, if_still=form.shown())
            if change
            else services.create_product(**facts, qty=obj.qty)
        )
        # The admin goes on with its own instance: to the log entry and the success message.
        obj.pk, obj.version = saved.pk, saved.version

    overtaken = {
        services.VersionMismatch: "Not saved: the product was changed since you opened this page."
        " It is shown as it is now.",
        selectors.ProductIsArchived: "",
    }

    def beside(self, row: Product) -> dict[str, Any]:
        """Return a product's newest movements."""
        rows = [
            [
                second(each.created_at),
                badge(f"{each.delta:+,}", "success" if each.delta > 0 else "warning"),
                number(each.qty_after),
                each.get_reason_display(),
                page_link(row, ORDERS, each.order_id or "—"),
            ]
            for each in row.movements.order_by("-id")[:_SHOWN_MOVEMENTS]
        ]
        headers = ["Time, UTC", "Change", "Stock after", "Reason", "Order"]
        return {
            "movements": {"headers": headers, "rows": rows},
            "shown_movements": _SHOWN_MOVEMENTS,
        }

    # Decisions

    def offers(self, row: Product) -> list[str]:
        """Offer what can be done with a product that is sold, or with one that is not."""
        return ["restock", "archive"] if row.archived_at is None else ["put_back"]

    @action(
        description="Update stock", icon="add_box", variant=ActionVariant.PRIMARY,
        permissions=["change"],
    )  # fmt: skip
    def restock(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Add units, or take some away."""
        return self.ask_about(request, object_id, self.restock_selected)

    @admin.action(description="Update stock", permissions=["change"])
    def restock_selected(
        self, request: HttpRequest, rows: QuerySet[Product]
    ) -> HttpResponse | None:
        """Add units to several products, or take some away."""
        first, *others = rows[:2]
        form = confirmed(
            self,
            request,
            rows,
            about_one=f"{counted(first.qty, 'unit')} in stock."
            " The change is recorded as a movement.",
            about_many="Update the stock of {count:,} products? Each gets the same change,"
            " recorded as a movement of its own.",
            button="Update stock",
            form=StockForm(
                request.POST if "delta" in request.POST else None,
                in_stock=None if others else first.qty,
            ),
        )
        if isinstance(form, HttpResponse):
            return form
        delta, reason, key = (form.cleaned_data[each] for each in ("delta", "reason", "key"))

        def move(product: Product) -> str:
            movement = services.move_stock(
                product_id=product.id,
                delta=delta,
                reason=reason,
                # With spaces, which no client's key has.
                idempotency_key=f"admin {key} {product.id}",
            )
            return f"stock {became(movement.qty_after - delta, movement.qty_after)}"

        done = "restocked" if reason == Reason.RESTOCK else "corrected"
        self._each(request, rows, f"{done} by {delta:+,}", move)
        return None

    @admin.action(description="Change price", permissions=["change"])
    def change_price_selected(
        self, request: HttpRequest, rows: QuerySet[Product]
    ) -> HttpResponse | None:
        """Give several products other prices, once these have been seen."""
        products = list(rows[: MAX_SELECTED + 1])
        form = PriceForm(request.POST if "amount" in request.POST else None, products=products)
        if not form.is_valid() and form.preview and "seen" in request.POST:
            messages.warning(request, "Not changed: these are other prices than you have seen.")
        answer = confirmed(
            self,
            request,
            rows,
            about_one="Change the price of this product? Nothing is changed yet.",
            about_many="Change the prices of {count:,} products? Nothing is changed yet.",
            button="Change price" if form.preview else "Show new prices",
            form=form,
            shown=form.preview,
        )
        if isinstance(answer, HttpResponse):
            return answer

        def change(product: Product) -> str:
            price, why_not = form.new_price(product)
            if why_not:
                raise _Left(why_not)
            before = {"price": product.price}
            services.update_product(product.id, price=price, if_still=before)
            return changes(before, {"price": price})

        self._each(request, products, "changed", change)
        return None

    @action(description="Archive", icon="archive", permissions=["change"])
    def archive(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Stop selling one product."""
        return self.ask_about(request, object_id, self.archive_selected)

    @admin.action(description="Archive", permissions=["change"])
    def archive_selected(
        self, request: HttpRequest, rows: QuerySet[Product]
    ) -> HttpResponse | None:
        """Stop selling several products."""
        answer = confirmed(
            self,
            request,
            rows,
            about_one="Archive this product? It cannot be ordered any more, until it is put back on"
            " sale; its orders and movements stay.",
            about_many="Archive {count:,} products? They cannot be ordered any more, until they"
            " are put back on sale; their orders and movements stay.",
            button="Archive",
        )
        if isinstance(answer, HttpResponse):
            return answer

        def archive(product: Product) -> str:
            if product.archived_at is not None:
                raise _Left("already archived")
            services.archive_product(product.id)
            return ""

        self._each(request, rows, "archived", archive)
        return None

    @action(
        description="Put back on sale", icon="unarchive", variant=ActionVariant.PRIMARY,
        permissions=["change"],
    )  # fmt: skip
    def put_back(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Sell one product again."""
        return self.ask_about(request, object_id, self.put_back_selected)

    @admin.action(description="Put back on sale", permissions=["change"])
    def put_back_selected(
        self, request: HttpRequest, rows: QuerySet[Product]
    ) -> HttpResponse | None:
        """Sell several products again."""
        answer = confirmed(
            self,
            request,
            rows,
            about_one="Put this product back on sale? It can be ordered again, at the price and"
            " with the stock that it has.",
            about_many="Put {count:,} products back on sale? They can be ordered again, at the"
            " prices and with the stock that they have.",
            button="Put back on sale",
        )
        if isinstance(answer, HttpResponse):
            return answer

        def restore(product: Product) -> str:
            if product.archived_at is None:
                raise _Left("already for sale")
            services.restore_product(product.id)
            return ""

        self._each(request, rows, "put back on sale", restore)
        return None

    def _each(
        self,
        request: HttpRequest,
        products: Iterable[Product],
        done: str,
        act: Callable[[Product], str],
    ) -> None:
        """Do with each what returns a note for its history; report what was left, and why."""
        notes, left = dict[Product, str](), Counter[str]()
        for product in products:
            try:
                notes[product] = act(product)
            except tuple(_WHY_LEFT) as error:
                left[_WHY_LEFT[type(error)] or str(error)] += 1
        report(self, request, done=done, rows=list(notes), left=left, note=notes.__getitem__)

    # Files

    def has_import_permission(self, request: HttpRequest) -> bool:
        """Allow it to those who may do the same by hand."""
        return self.has_add_permission(request) and self.has_change_permission(request)

    def get_import_resource_classes(self, request: HttpRequest) -> list[Any]:  # noqa: ARG002 - import-export's signature
        """Take what `ProductImport` says."""
        return [ProductImport]

    def import_action(self, request: HttpRequest, **kwargs: Any) -> Any:
        """Ask for a file, and show what it would change."""
        return self._unless_gone(super().import_action, request, **kwargs)

    def process_import(self, request: HttpRequest, **kwargs: Any) -> Any:
        """Import what was previewed."""
        return self._unless_gone(super().process_import, request, **kwargs)

    @staticmethod
    def _unless_gone(view: Callable[..., Any], request: HttpRequest, **kwargs: Any) -> Any:
        try:
            return view(request, **kwargs)
        except FileIsGone as error:
            messages.error(request, str(error))
            return HttpResponseRedirect(reverse("admin:products_product_import"))

    def add_data_read_fail_error_to_form(self, form: Any, e: Exception) -> None:
        """Say beside the field what is wrong with the file."""
        if not isinstance(e, UnreadableFile):
            raise e
        form.add_error("import_file", str(e))

    def generate_log_entries(self, result: Any, request: HttpRequest) -> None:
        """Tell the history of each product what its row has changed."""
        for row in result:
            if row.is_new():
                self.log_addition(request, row.instance, "Imported.")
            elif row.is_update():
                before, after = (model_to_dict(each) for each in (row.original, row.instance))
                self.log_change(request, row.instance, f"Imported: {changes(before, after)}")

    def add_success_message(self, result: Any, request: HttpRequest) -> None:
        """Say what was done, and what was not: each row commits by itself."""
        totals = result.totals
        messages.success(
            request,
            f"Imported: {totals['new']:,} new, {totals['update']:,} changed,"
            f" {totals['skip']:,} unchanged.",
        )
        for number_, errors in result.row_errors():
            said = "; ".join(str(each.error) for each in errors)
            messages.error(request, f"Row {number_} was not imported: {said}")
        for row in result.invalid_rows:
            messages.error(request, f"Row {row.number} was not imported: {row.error}")
