"""Products as CSV files. What is imported takes the same way as through the API."""

import base64
import contextlib
import csv
import re
from typing import Any
from uuid import UUID

from django import forms
from django.core.exceptions import ValidationError
from django.utils.html import format_html
from django_redis.exceptions import ConnectionInterrupted
from import_export.fields import Field
from import_export.formats.base_formats import CSV
from import_export.resources import Diff, ModelResource
from import_export.results import Error
from import_export.tmp_storages import CacheStorage
from import_export.widgets import Widget
from redis.exceptions import RedisError
from tablib.core import InvalidDimensions
from unfold.contrib.import_export.forms import ImportForm

from products_project.products import services
from products_project.products.admin.history import became, shown
from products_project.products.models import Product
from servicekit.backoffice.money import money
from servicekit.backoffice.spreadsheets import Text
from servicekit.contracts.fields import MAX_INT32, MAX_JSON_INTEGER

MAX_ROWS = 1000
_MAX_BYTES = 1024 * 1024
_CACHE_IS_AWAY = (ConnectionInterrupted, RedisError)
_DELIMITERS = ",;\t"
_WHOLE_NUMBER = re.compile(r"-?\d{1,19}")


class WholeNumber(Widget):
    """Reads `190000`, and neither `1900.00` nor `190,000`."""

    def __init__(self, *, minimum: int, maximum: int) -> None:
        super().__init__()
        self._minimum, self._maximum = minimum, maximum

    def clean(self, value: Any, row: Any = None, **_options: Any) -> int | None:  # noqa: ARG002 - import-export's signature
        """Return the number.

        :raises ValueError: if it is none, or too small or large
        """
        text = str(value).strip() if value is not None else ""
        if not text:
            return None
        if not _WHOLE_NUMBER.fullmatch(text):
            raise ValueError(f"{text!r} is not a whole number.")
        if not self._minimum <= int(text) <= self._maximum:
            raise ValueError(f"Must be between {self._minimum:,} and {self._maximum:,}.")
        return int(text)

    def render(self, value: Any, obj: Any = None, **_options: Any) -> str:  # noqa: ARG002 - import-export's signature
        """Return the number as it is read."""
        return "" if value is None else str(value)


class UnreadableFile(ValueError):
    """The file as a whole cannot be imported; says why in a sentence."""


class ProductCSV(CSV):
    """A CSV file as spreadsheets write it: with commas, semicolons or tabs."""

    def create_dataset(self, in_stream: bytes, **options: Any) -> Any:
        """Read the file, and look at it as a whole.

        :raises UnreadableFile: if it is not text, has too many rows, or lacks columns
        """
        try:
            text = in_stream.decode(self.encoding or "utf-8-sig")
        except UnicodeDecodeError as error:
            raise UnreadableFile("The file is not UTF-8.") from error
        header = text.partition("\n")[0]
        try:
            dataset = super().create_dataset(
                text, delimiter=max(_DELIMITERS, key=header.count), **options
            )
        except (csv.Error, InvalidDimensions) as error:
            raise UnreadableFile(
                "The file is not a valid CSV file: it has a line with more columns than the first"
                " one, or with an open quotation mark."
            ) from error
        if len(dataset) > MAX_ROWS:
            raise UnreadableFile(
                f"{len(dataset):,} rows are too many: import {MAX_ROWS:,} at a time."
            )
        headers = dataset.headers or []
        missing = [name for name in ("name", "price") if name not in headers]
        if missing and "id" not in headers:
            raise UnreadableFile(
                f"The first line must name the columns; missing: {' and '.join(missing)}."
            )
        return dataset


class PlainError(Error):
    """What went wrong, without the way through the code."""

    traceback = ""


class OldToNew(Diff):
    """What a row makes of a product, in the columns of a file."""

    def __init__(self, resource: Any, instance: Product, new: bool) -> None:  # noqa: ARG002, FBT001 - import-export's signature
        self._before, self._is_new = instance, new

    def compare_with(self, resource: Any, instance: Product) -> None:  # noqa: ARG002 - import-export's signature
        """Take the product as it would be."""
        self._after = instance

    def as_html(self) -> list[str]:
        """Return a cell for each column; the id of what is new is made when it is imported."""
        cells = ["" if self._is_new else str(self._after.pk)]
        for field, show in (("name", shown), ("price", money), ("qty", shown)):
            before, after = getattr(self._before, field), getattr(self._after, field)
            is_kept = self._is_new or before == after
            cell = show(after) if is_kept else became(before, after, show)
            cells.append(cell if is_kept else format_html("<strong>{}</strong>", cell))
        if self._after.archived_at is not None:
            cells[1] += " (archived)"
        return cells


class ProductImport(ModelResource):
    """New products, and new names and prices of those there are.

    A row with an id changes that product, one without makes a new product. The stock counts for
    new products only: afterwards movements change it.
    """

    name = Field("name", "name", widget=Text())
    price = Field("price", "price", widget=WholeNumber(minimum=1, maximum=MAX_JSON_INTEGER))
    qty = Field("qty", "qty", widget=WholeNumber(minimum=0, maximum=MAX_INT32))

    class Meta:
        model = Product
        fields = ("id", "name", "price", "qty")
        import_order = fields
        # Not by the library: see `get_instance`.
        import_id_fields: tuple[str, ...] = ()
        # The services commit by themselves, row by row.
        use_transactions = False
        clean_model_instances = True
        skip_unchanged = True
        report_skipped = True

    @classmethod
    def get_error_result_class(cls) -> type[Error]:
        """Return what the preview shows of an error."""
        return PlainError

    @classmethod
    def get_diff_class(cls) -> type[Diff]:
        """Return what the preview shows of a row."""
        return OldToNew

    def after_import(self, dataset: Any, result: Any, **options: Any) -> None:
        """Note which rows make a second product of a name: (number of the row, name) of each."""
        super().after_import(dataset, result, **options)
        if options.get("dry_run"):
            new = [(n, row.object_repr) for n, row in enumerate(result.rows, 1) if row.is_new()]
            found = Product.objects.filter(name__in={name for _, name in new})
            taken = set(found.values_list("name", flat=True).distinct())
            result.namesakes = [(n, name) for n, name in new if name in taken]

    def get_instance(self, instance_loader: Any, row: Any) -> Product | None:  # noqa: ARG002 - import-export's signature
        """Return the product that a row is about, None if it makes a new one.

        :raises ValidationError: if the row names a product that there is not
        """
        text = str(row.get("id") or "").strip()
        if not text:
            return None
        try:
            return Product.objects.get(pk=UUID(text))
        except (ValueError, Product.DoesNotExist) as error:
            raise ValidationError({"id": f"There is no product {text}."}) from error

    def import_field(
        self,
        field: Field,
        instance: Product,
        row: Any,
        is_m2m: bool = False,  # noqa: FBT001, FBT002 - import-export's signature
        **options: Any,
    ) -> None:
        """Take a column; of a product that exists, neither id nor stock.

        Nothing is taken for an archived product: a row that changes nothing is skipped.
        """
        if instance.archived_at is not None:
            return
        is_new = instance._state.adding  # noqa: SLF001 - Django documents it
        if field.column_name == "id" or (field.column_name == "qty" and not is_new):
            return
        super().import_field(field, instance, row, is_m2m, **options)

    def save_instance(self, instance: Product, is_create: bool, row: Any, **options: Any) -> None:  # noqa: FBT001 - import-export's signature
        """Save a row, unless this is the preview, which leaves nothing behind anywhere."""
        if not options.get("dry_run"):
            super().save_instance(instance, is_create, row, **options)

    def do_instance_save(self, instance: Product, is_create: bool) -> None:  # noqa: FBT001 - import-export's signature
        """Save through the services, which record the event and write the cache."""
        if is_create:
            saved = services.create_product(
                name=instance.name, price=instance.price, qty=instance.qty
            )
            instance.pk = saved.pk
        else:
            services.update_product(instance.pk, name=instance.name, price=instance.price)


class ProductExport(ModelResource):
    """What an import takes, and what else there is to know."""

    name = Field("name", "name", widget=Text())

    class Meta:
        model = Product
        fields = ("id", "name", "price", "qty", "created_at", "archived_at")
        export_order = fields


class ProductFileForm(ImportForm):
    """Asks for the file."""

    def clean_import_file(self) -> Any:
        """Refuse what is too large to be read at once."""
        file = self.cleaned_data["import_file"]
        if file.size > _MAX_BYTES:
            raise forms.ValidationError("The file is larger than 1 MB.")
        return file


class FileIsGone(Exception):
    """What was uploaded for the preview is not there any more."""

    def __init__(self, why: str = "Redis is not available, and an import needs it.") -> None:
        super().__init__(f"{why} Upload the file again later.")


class UploadedFile(CacheStorage):
    """Keeps a file between preview and confirmation, which may reach another machine."""

    CACHE_LIFETIME = 3600
    CACHE_PREFIX = "product-import:"

    def save(self, data: bytes) -> None:
        """Keep it for an hour.

        :raises FileIsGone: if the cache is away
        """
        try:
            # The cache holds JSON, and what people upload may be anything.
            super().save(base64.b64encode(data).decode())
        except _CACHE_IS_AWAY as error:
            raise FileIsGone from error

    def read(self) -> bytes:
        """Return what was uploaded.

        :raises FileIsGone: if an hour has passed, or the cache is away
        """
        try:
            data = super().read()
        except _CACHE_IS_AWAY as error:
            raise FileIsGone from error
        if data is None:
            raise FileIsGone("The uploaded file has expired.")
        return base64.b64decode(data)

    def remove(self) -> None:
        """Forget it; if that fails, the cache does by itself."""
        with contextlib.suppress(*_CACHE_IS_AWAY):
            super().remove()
