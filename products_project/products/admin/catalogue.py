"""Products and their stock, for the people who run the shop."""

from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from import_export.admin import ImportExportMixin
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminSelectWidget

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
from products_project.products.admin.stock import LOW_STOCK, stock_badge
from products_project.products.models import Product, StockMovement
from servicekit.backoffice.actions import ServiceAdmin, confirmed, report
from servicekit.backoffice.display import (
    badge,
    code,
    column,
    counted,
    moment,
    number,
    second,
    short,
)
from servicekit.backoffice.ledgers import nobody
from servicekit.backoffice.money import MoneyField, money
from servicekit.backoffice.spreadsheets import BoundedExport
from servicekit.contracts.fields import MAX_INT32, MAX_JSON_INTEGER

Reason = StockMovement.Reason

_SHOWN_MOVEMENTS = 20


class StockFilter(admin.SimpleListFilter):
    """By how much there is."""

    title = "stock"
    parameter_name = "stock"

    _CHOICES: ClassVar[dict[str | None, tuple[str, Q]]] = {
        "short": (f"{LOW_STOCK} or fewer", Q(qty__lte=LOW_STOCK)),
        "out": ("Out of stock", Q(qty=0)),
        "low": (f"Low stock (1 to {LOW_STOCK})", Q(qty__range=(1, LOW_STOCK))),
        "ok": ("In stock", Q(qty__gt=LOW_STOCK)),
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


class ProductForm(forms.ModelForm[Product]):
    """Takes what the API takes, and says what is wrong beside the field."""

    price = MoneyField(minimum=1, maximum=MAX_JSON_INTEGER)

    class Meta:
        model = Product
        fields = ["name", "price", "qty"]

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
        sent = {name: self.data.get(self[name].html_initial_name) for name in self.fields}
        return {
            name: self.fields[name].to_python(value)
            for name, value in sent.items()
            if value is not None
        }


class StockForm(forms.Form):
    """Asks how many units come or go, and why."""

    delta = forms.IntegerField(
        label="Units",
        min_value=-MAX_INT32,
        max_value=MAX_INT32,
        widget=UnfoldAdminIntegerFieldWidget(attrs={"placeholder": "50 or -3"}),
        help_text="Below zero takes units away.",
    )
    reason = forms.ChoiceField(
        choices=[(Reason.RESTOCK, "Restock"), (Reason.CORRECTION, "Correction")],
        widget=UnfoldAdminSelectWidget,
    )

    def __init__(self, *args: Any, product: Product, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_stock = product.qty

    def clean_delta(self) -> int:
        """Refuse what moves nothing, and what there is not, while one can still correct it."""
        delta = int(self.cleaned_data["delta"])
        if not delta:
            raise forms.ValidationError("Enter how many units to add or remove.")
        if self._in_stock + delta < 0:
            raise forms.ValidationError(f"Only {counted(self._in_stock, 'is', 'are')} in stock.")
        return delta


@admin.register(Product)
class ProductAdmin(BoundedExport, ImportExportMixin, ServiceAdmin):
    """Products. What is saved here takes the same way as through the API: event, cache and all."""

    form = ProductForm
    list_display = [
        "short_name",
        "sold_badge",
        "stock",
        "in_stock",
        "price_text",
        "created",
        "short_id",
    ]
    list_filter = [StockFilter, ArchivedFilter]
    search_fields = ["name", "id"]
    search_help_text = "A part of the name, or the whole id"
    ordering = ["-id"]
    empty_text = "No products yet. Add one, or import a file of them."
    actions = ["archive_selected"]
    actions_row = ["restock"]
    actions_detail = ["restock", "archive"]
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
    sold_badge = column(
        "status",
        lambda product: (
            badge("for sale", "info") if product.archived_at is None else badge("archived", "")
        ),
    )
    stock = column("stock", lambda product: stock_badge(product.qty))
    in_stock = column("units", lambda product: number(product.qty))
    price_text = column("price", lambda product: money(product.price))
    created = column("created, UTC", lambda product: moment(product.created_at))
    archived = column("archived, UTC", lambda product: moment(product.archived_at))
    # The whole id: people order by it.
    short_id = column("id", lambda product: code(product.id))

    # One product

    def get_readonly_fields(self, request: HttpRequest, obj: Product | None = None) -> list[str]:  # noqa: ARG002 - Django's signature
        """Stock is set once; afterwards only movements change it."""
        return ["stock", "in_stock", "short_id", "version", "created", "archived"] if obj else []

    def get_fieldsets(self, request: HttpRequest, obj: Product | None = None) -> Any:  # noqa: ARG002 - Django's signature
        """Show what there is to say: of a new product only what is asked for."""
        if obj is None:
            return [(None, {"fields": ["name", "price", "qty"]})]
        facts = ["short_id", ("created", "archived", "version")]
        return [(None, {"fields": ["name", "price", ("in_stock", "stock"), *facts]})]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """What is archived stays as it was."""
        may = bool(super().has_change_permission(request, obj))
        return may and (not isinstance(obj, Product) or obj.archived_at is None)

    # The orders and movements of a product refer to it.
    has_delete_permission = nobody

    def save_model(
        self,
        request: HttpRequest,  # noqa: ARG002 - Django's signature
        obj: Product,
        form: Any,
        change: bool,  # noqa: FBT001 - Django's signature
    ) -> None:
        """Save through the services, which record the event and write the cache."""
        saved = (
            services.update_product(obj.id, name=obj.name, price=obj.price, if_still=form.shown())
            if change
            else services.create_product(name=obj.name, price=obj.price, qty=obj.qty)
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
                code(each.order_id or "—"),
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
        """Offer what can be done with a product that is sold."""
        return ["restock", "archive"] if row.archived_at is None else []

    @action(
        description="Update stock", icon="add_box", variant=ActionVariant.PRIMARY,
        permissions=["change"],
    )  # fmt: skip
    def restock(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Add units, or take some away."""
        return self.ask_about(request, object_id, self._ask_to_restock)

    def _ask_to_restock(self, request: HttpRequest, rows: QuerySet[Product]) -> HttpResponse | None:
        product = rows.get()
        form = confirmed(
            self,
            request,
            rows,
            about_one=f"{product}: {counted(product.qty, 'unit')} in stock."
            " The change is recorded as a movement.",
            button="Update stock",
            form=StockForm(request.POST or None, product=product),
        )
        if isinstance(form, HttpResponse):
            return form
        delta, reason = form.cleaned_data["delta"], form.cleaned_data["reason"]
        try:
            movement = services.move_stock(product_id=product.id, delta=delta, reason=reason)
        except (
            selectors.ProductIsArchived,
            services.StockBelowZero,
            services.StockTooLarge,
        ) as error:
            messages.error(request, str(error))
        else:
            self.log_change(request, product, f"Stock changed by {delta:+,} ({reason}).")
            messages.success(
                request, f"{product}: {delta:+,} units, {movement.qty_after:,} in stock now."
            )
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
            about_one="Archive this product? It cannot be ordered any more; its orders and"
            " movements stay. This cannot be undone.",
            about_many="Archive {count:,} products? They cannot be ordered any more; their orders"
            " and movements stay. This cannot be undone.",
            button="Archive",
        )
        if isinstance(answer, HttpResponse):
            return answer
        archived, left = [], Counter[str]()
        for product in rows:
            if product.archived_at is not None:
                left["already archived"] += 1
                continue
            services.archive_product(product.id)
            archived.append(product)
        report(self, request, done="archived", rows=archived, left=left)
        return None

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
