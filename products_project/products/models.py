"""Products, their prices, and the two ledgers that explain their stock: movements, reservations."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import ClassVar
from uuid import UUID

import msgspec
from django.db import connection, models
from django.db.models import F, Q

from servicekit.database import figures
from servicekit.database.bulk import as_json
from servicekit.identifiers import new_id
from servicekit.timestamps import now_in_milliseconds


class ProductManager(models.Manager["Product"]):
    """Locks products and writes their stock in bulk."""

    def lock(self, ids: Iterable[UUID]) -> dict[UUID, "Product"]:
        """Return the products that exist, locked until the end of the transaction."""
        # Sorted, so that two consumers that meet on two products cannot deadlock. `no_key`,
        # because the movements that refer to a product need not wait for its stock.
        locked = self.filter(id__in=sorted(set(ids))).order_by("id")
        return {product.id: product for product in locked.select_for_update(no_key=True)}

    def write_stock(self, products: Iterable["Product"]) -> None:
        """Write the stock and version of locked products, one statement for all."""
        rows = [{"id": p.id, "qty": p.qty, "version": p.version} for p in products]
        with connection.cursor() as cursor:
            cursor.execute(
                """
                UPDATE product SET qty = new.qty, version = new.version
                FROM json_to_recordset(%s) AS new (id uuid, qty bigint, version bigint)
                WHERE product.id = new.id
                """,
                [as_json(rows)],
            )


class Product(models.Model):
    """Something that is sold, and how many of it there are."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    name = models.CharField(max_length=255)
    price = models.BigIntegerField(help_text="In the currency's smallest unit, for example cents.")
    # Larger than any quantity: what came in meanwhile keeps nothing from being given back.
    qty = models.BigIntegerField("in stock")
    # Null: where that begins for all that say nothing else. Of interest to people only.
    low_stock = models.PositiveIntegerField("low stock at", null=True, blank=True)
    # Raised by every change of the row: the order of events and cache writes about it.
    version = models.BigIntegerField(default=1, editable=False)
    created_at = models.DateTimeField(default=now_in_milliseconds, editable=False)
    # Set: not sold any more. The row stays, because movements and orders refer to it.
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects: ClassVar[ProductManager] = ProductManager()

    class Meta:
        db_table = "product"
        constraints = [
            models.CheckConstraint(condition=Q(qty__gte=0), name="product_qty_not_negative"),
            models.CheckConstraint(condition=Q(price__gt=0), name="product_price_positive"),
        ]

    def __str__(self) -> str:
        return self.name


class ProductPrice(models.Model):
    """A price of a product, and since when. None is ever changed or deleted."""

    id = models.BigAutoField(primary_key=True)
    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="prices")
    price = models.BigIntegerField()
    since = models.DateTimeField(default=now_in_milliseconds)

    class Meta:
        db_table = "product_price"

    def __str__(self) -> str:
        return f"{self.price} since {self.since:%Y-%m-%d %H:%M:%S}"


class OrderMovement(msgspec.Struct):
    """A movement that an order causes, to be stored: a tenth of a model's cost."""

    product_id: UUID
    delta: int
    qty_after: int
    reason: str
    order_id: str
    created_at: datetime


class StockMovementManager(models.Manager["StockMovement"]):
    """Stores movements in bulk."""

    def insert(self, movements: Sequence[OrderMovement]) -> None:
        """Store movements, one statement for all."""
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO stock_movement
                    (product_id, delta, qty_after, reason, order_id, created_at, idempotency_key)
                SELECT *, '' FROM json_to_recordset(%s) AS new (
                    product_id uuid, delta int, qty_after bigint, reason text, order_id text,
                    created_at timestamptz
                )
                """,
                [as_json(movements)],
            )


class StockMovement(models.Model):
    """One change of a product's stock. Their sum is the stock; none is ever changed or deleted."""

    class Reason(models.TextChoices):
        """Why the stock changed: by an order or its cancellation, or by a person."""

        INITIAL = "initial"
        ORDER = "order"
        CANCELLATION = "cancellation"
        RESTOCK = "restock"
        CORRECTION = "correction"

    id = models.BigAutoField(primary_key=True)
    # Found by `stock_movement_of_product`: another index would be written with every order.
    product = models.ForeignKey(
        Product, on_delete=models.PROTECT, related_name="movements", db_index=False
    )
    delta = models.IntegerField()
    qty_after = models.BigIntegerField("in stock afterwards")
    reason = models.CharField(max_length=20, choices=Reason)
    order_id = models.CharField(max_length=64, blank=True, default="")
    # As the client has sent it, after the prefix of the client's API key.
    idempotency_key = models.CharField(max_length=300, blank=True, default="")
    created_at = models.DateTimeField(default=now_in_milliseconds)

    objects: ClassVar[StockMovementManager] = StockMovementManager()

    class Meta:
        db_table = "stock_movement"
        indexes = [models.Index(fields=["product", "-id"], name="stock_movement_of_product")]
        constraints = [
            models.CheckConstraint(condition=~Q(delta=0), name="stock_movement_moves_something"),
            models.UniqueConstraint(
                fields=["order_id", "reason"],
                condition=~Q(order_id=""),
                name="stock_movement_once_per_order",
            ),
            models.UniqueConstraint(
                fields=["idempotency_key"],
                condition=~Q(idempotency_key=""),
                name="stock_movement_once_per_idempotency_key",
            ),
            models.CheckConstraint(
                condition=Q(qty_after__gte=0), name="stock_movement_leaves_no_debt"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.delta:+d} ({self.reason})"


class Decision(msgspec.Struct):
    """What is, or is to be, a row of `Reservation`: a tenth of a model's cost."""

    order_id: str
    product_id: UUID
    quantity: int
    outcome: str
    reason: str
    stock_before: int
    created_at: datetime
    is_foreign: bool = False


class ReservationManager(models.Manager["Reservation"]):
    """Reads and stores decisions in bulk."""

    def insert(self, decisions: Sequence[Decision]) -> int:
        """Store decisions, except about orders that are decided; return how many were stored."""
        # Sorted, so that two consumers with the same orders wait for each other, not in a circle.
        rows = sorted(decisions, key=lambda decision: decision.order_id)
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO reservation
                    (order_id, product_id, quantity, outcome, reason, stock_before, created_at,
                     is_foreign)
                SELECT * FROM json_to_recordset(%s) AS new (
                    order_id text, product_id uuid, quantity int, outcome text, reason text,
                    stock_before bigint, created_at timestamptz, is_foreign boolean
                )
                ON CONFLICT (order_id) DO NOTHING
                """,
                [as_json(rows)],
            )
            return int(cursor.rowcount)

    def decided(self, order_ids: Iterable[str]) -> dict[str, Decision]:
        """Return the decisions that there are already, by order."""
        with connection.cursor() as cursor:
            cursor.execute(
                """
                SELECT order_id, product_id, quantity, outcome, reason, stock_before, created_at,
                    is_foreign
                FROM reservation
                WHERE order_id IN (SELECT json_array_elements_text(%s::json))
                """,
                [as_json(list(order_ids))],
            )
            return {row[0]: Decision(*row) for row in cursor.fetchall()}

    def release(self, order_ids: Iterable[str]) -> None:
        """Note that the stock of these orders was given back."""
        self.filter(order_id__in=list(order_ids)).update(outcome=Reservation.Outcome.RELEASED)

    def claim(self, order_ids: Iterable[str]) -> None:
        """Note that these orders are the order service's, whoever has announced them before."""
        self.filter(order_id__in=list(order_ids)).update(is_foreign=False)


class Reservation(models.Model):
    """What was decided about an order's stock. The order decides once: it is the primary key."""

    class Outcome(models.TextChoices):
        """The decision; what was reserved may be released, when the order is cancelled."""

        RESERVED = "RESERVED"
        REJECTED = "REJECTED"
        RELEASED = "RELEASED"
        # Cancelled before its stock was asked for: it gets none when it is.
        CANCELLED = "CANCELLED"

    # Text, because orders of other systems have integers. And no foreign key to the product,
    # because an order for a product that does not exist is decided too.
    order_id = models.CharField(primary_key=True, max_length=64)
    product_id = models.UUIDField()
    quantity = models.IntegerField()
    outcome = models.CharField(max_length=10, choices=Outcome)
    reason = models.CharField(max_length=40, blank=True, default="")
    stock_before = models.BigIntegerField(help_text="The stock that the decision was made on.")
    created_at = models.DateTimeField(default=now_in_milliseconds)
    is_foreign = models.BooleanField(
        db_default=False, help_text="The order service has not announced this order."
    )

    objects: ClassVar[ReservationManager] = ReservationManager()

    class Meta:
        db_table = "reservation"
        indexes = [models.Index(fields=["-created_at"], name="reservation_latest")]
        constraints = [
            models.CheckConstraint(
                condition=Q(quantity__gt=0), name="reservation_quantity_positive"
            ),
            models.CheckConstraint(
                condition=~Q(outcome="RESERVED") | Q(stock_before__gte=F("quantity")),
                name="reservation_only_of_what_was_there",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.order_id}: {self.outcome}"


class StockFigures(figures.Figures):
    """How many units were taken by orders, and added, in a period."""

    lengths = figures.BY_BAR

    taken = models.BigIntegerField()
    added = models.BigIntegerField()

    class Meta:
        db_table = "stock_figures"
        constraints = [figures.constraint("stock_figures_once")]


class Sales(figures.Figures):
    """What was sold of a product in a period and not given back since."""

    keys = ("product_id",)
    lengths = figures.BY_STEP

    product_id = models.UUIDField()
    units = models.BigIntegerField()
    # Of many products, each for up to 2^63.
    revenue = models.DecimalField(max_digits=40, decimal_places=0)

    class Meta:
        db_table = "sales"
        indexes = [figures.new_index("sales_new")]
        constraints = [figures.constraint("sales_once", "product_id")]


class RefusedOrders(figures.Figures):
    """How many orders were refused in a period, by reason.

    A trigger of migration 0003 adds those that were accepted before.
    """

    keys = ("reason", "product_id")
    lengths = figures.BY_STEP

    reason = models.CharField(max_length=40)
    # Of what was not in stock; zero where it was not about a product that there is.
    product_id = models.UUIDField()
    orders = models.IntegerField()

    class Meta:
        db_table = "refused_orders"
        indexes = [figures.new_index("refused_orders_new")]
        constraints = [figures.constraint("refused_orders_once", "reason", "product_id")]


class CountedUpTo(models.Model):
    """Up to where something is in the figures."""

    name = models.CharField(primary_key=True, max_length=20)
    number = models.BigIntegerField()

    class Meta:
        db_table = "counted_up_to"

    def __str__(self) -> str:
        return f"{self.name} up to {self.number}"
