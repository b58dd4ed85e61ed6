"""Orders."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import ClassVar
from uuid import UUID

import msgspec
from django.db import connection, models, transaction
from django.db.models import F, Func, Max, Q, Value
from django.db.models.functions import Greatest, Now

from orders_project.orders.commands import NAME_MAX_LENGTH, AcceptedOrder
from servicekit.database import figures
from servicekit.database.bulk import as_json
from servicekit.identifiers import new_id
from servicekit.timestamps import now_in_milliseconds

RECHECK_AFTER_SECONDS = 30
"""How long an order may wait for an answer about its stock before the watchdog asks again."""

CANCEL_REASON_MAX_LENGTH = 500
# The name of a user has up to 150 characters, that of an API key 100.
CANCELLED_BY_MAX_LENGTH = 150

# Who is storing orders holds an advisory lock of this class on a number below those that they get:
# the trigger `order_storing`, of migration 0004.
_STORING = 0x4F52


class OrderManager(models.Manager["Order"]):
    """Writes and locks orders in bulk, one statement for a batch."""

    def insert_new(
        self, orders: Sequence[AcceptedOrder], *, recheck_after_seconds: int
    ) -> set[UUID]:
        """Store those that are not stored yet, and return their ids."""
        # Sorted, so that two batches with the same orders wait for each other, not in a circle.
        rows = sorted(orders, key=lambda order: order.id)
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO "order" (
                    id, product_id, product_name, quantity, total_price, created_at,
                    status, reason, stored_at, recheck_at
                )
                SELECT id, "productId", coalesce("productName", ''), quantity, "totalPrice",
                    "createdAt",
                    'PENDING', '', now(), now() + make_interval(secs => %s)
                FROM json_to_recordset(%s) AS accepted (
                    id uuid, "productId" uuid, "productName" text, quantity int,
                    "totalPrice" bigint, "createdAt" timestamptz
                )
                ON CONFLICT (id) DO NOTHING
                RETURNING id
                """,
                [recheck_after_seconds, as_json(rows)],
            )
            return {row[0] for row in cursor.fetchall()}

    def stored_for_good(self) -> int:
        """Return a number up to which all orders that will ever be stored are visible from now on.

        Not within a transaction that sees one state only: it may be older than this answer.
        """
        # In this order: a number that is handed out after the first statement is beyond its answer,
        # and of all before it the second sees who can still store one.
        newest: int = self.aggregate(newest=Max("stored_number"))["newest"] or 0
        with connection.cursor() as cursor:
            cursor.execute(
                """
                SELECT min((classid::bigint & 65535) << 32 | objid::bigint) FROM pg_locks
                WHERE locktype = 'advisory' AND objsubid = 1 AND classid::bigint >> 16 = %s
                    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                """,
                [_STORING],
            )
            (being_stored,) = cursor.fetchone()
        return newest if being_stored is None else min(newest, being_stored)

    def pending(self, ids: Iterable[UUID]) -> list["Order"]:
        """Return those of some orders whose stock is not decided."""
        return list(self.filter(id__in=list(ids), status=Order.Status.PENDING))

    def lock(self, ids: Iterable[UUID]) -> dict[UUID, "Order"]:
        """Return the orders that exist, locked until the end of the transaction."""
        locked = self.filter(id__in=sorted(set(ids))).order_by("id")
        return {order.id: order for order in locked.select_for_update(no_key=True)}

    def lock_for_settling(self, ids: Iterable[UUID]) -> dict[UUID, "Settlement"]:
        """Do the same and return what settling has to know of each: a fifth of a model's cost."""
        with connection.cursor() as cursor:
            cursor.execute(
                """
                SELECT id, product_id, quantity, status, decided_at IS NOT NULL,
                    released_at IS NOT NULL
                FROM "order" WHERE id = ANY(%s::uuid[]) ORDER BY id FOR NO KEY UPDATE
                """,
                [f"{{{','.join(map(str, set(ids)))}}}"],
            )
            return {row[0]: Settlement(*row) for row in cursor.fetchall()}

    def write_settlements(self, settlements: Iterable["Settlement"]) -> None:
        """Write what locked orders were told about their stock."""
        with connection.cursor() as cursor:
            cursor.execute(
                """
                UPDATE "order" SET
                    status = new.status,
                    reason = coalesce(new.reason, "order".reason),
                    announced_at = coalesce(new.announced_at, "order".announced_at),
                    decided_at = coalesce(new.decided_at, "order".decided_at),
                    settled_at = coalesce("order".settled_at, new.settled_at),
                    released_at = coalesce(new.released_at, "order".released_at),
                    recheck_at = CASE WHEN new.is_complete THEN NULL ELSE "order".recheck_at END
                FROM json_to_recordset(%s) AS new (
                    id uuid, status text, reason text, announced_at timestamptz,
                    decided_at timestamptz, settled_at timestamptz, released_at timestamptz,
                    is_complete boolean
                )
                WHERE "order".id = new.id
                """,
                [as_json(list(settlements))],
            )

    def claim_overdue(self, limit: int) -> list["Order"]:
        """Take the orders that have waited too long for an answer, the longest first.

        They are due again later: after 30 s, or when they are twice as old.
        """
        overdue = self.filter(recheck_at__lte=Now()).order_by("recheck_at")
        with transaction.atomic(durable=True):
            orders = list(overdue.select_for_update(skip_locked=True)[:limit])
            pause = Greatest(Now() - F("created_at"), timedelta(seconds=RECHECK_AFTER_SECONDS))
            self.filter(id__in=[order.id for order in orders]).update(recheck_at=Now() + pause)
        return orders

    def recheck_now(self, ids: Iterable[UUID]) -> int:
        """Have the watchdog ask again about those that wait for an answer; return how many."""
        return self.recheck_in(timedelta(), ids)

    def recheck_in(self, pause: timedelta, ids: Iterable[UUID]) -> int:
        """Have it ask again after a pause; return about how many."""
        waiting = self.filter(id__in=list(ids), recheck_at__isnull=False)
        return waiting.update(recheck_at=Now() + pause)


class Settlement(msgspec.Struct, omit_defaults=True):
    """A locked order while its stock is being settled: what it was, and what is to be written."""

    id: UUID
    product_id: UUID
    quantity: int
    status: str
    is_decided: bool
    is_released: bool
    reason: str | None = None
    announced_at: datetime | None = None
    decided_at: datetime | None = None
    settled_at: datetime | None = None
    released_at: datetime | None = None
    is_complete: bool = False
    """Nothing more is to be heard about its stock."""


class Order(models.Model):
    """A client's order, and what became of it."""

    class Status(models.TextChoices):
        """PENDING until the stock is decided; what is CONFIRMED can still be CANCELLED."""

        PENDING = "PENDING"
        CONFIRMED = "CONFIRMED"
        REJECTED = "REJECTED"
        CANCELLED = "CANCELLED"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    product_id = models.UUIDField()
    # As it was when it was sold, for people; what the product is called now, its service knows.
    product_name = models.CharField(
        "product", max_length=NAME_MAX_LENGTH, blank=True, db_default=""
    )
    quantity = models.IntegerField()
    total_price = models.BigIntegerField()
    status = models.CharField(max_length=10, choices=Status, default=Status.PENDING)
    reason = models.CharField(max_length=40, blank=True, default="")
    # The order's history, in the order in which it usually goes. None: not yet, or never.
    created_at = models.DateTimeField("accepted", default=now_in_milliseconds)
    stored_at = models.DateTimeField("stored", null=True, blank=True)
    announced_at = models.DateTimeField("announced", null=True, blank=True)
    decided_at = models.DateTimeField("stock decided", null=True, blank=True)
    settled_at = models.DateTimeField("settled", null=True, blank=True)
    cancelled_at = models.DateTimeField("cancelled", null=True, blank=True)
    released_at = models.DateTimeField("stock given back", null=True, blank=True)
    # Of the cancellation. None costs an order that is never cancelled not a byte.
    cancelled_by = models.CharField(max_length=CANCELLED_BY_MAX_LENGTH, null=True, blank=True)  # noqa: DJ001 - see above
    cancel_reason = models.CharField(  # noqa: DJ001 - see above
        "why cancelled", max_length=CANCEL_REASON_MAX_LENGTH, null=True, blank=True
    )
    # When the watchdog asks again about its stock; None when there is nothing more to be heard.
    recheck_at = models.DateTimeField(null=True, blank=True)
    # Given by the database, also to what old code inserts; 0: stored before there were numbers.
    stored_number = models.BigIntegerField(
        editable=False, db_default=Func(Value("order_stored_number"), function="nextval")
    )

    objects: ClassVar[OrderManager] = OrderManager()

    class Meta:
        db_table = "order"
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="order_latest"),
            models.Index(fields=["product_id", "-created_at", "-id"], name="order_of_product"),
            models.Index(fields=["status", "-created_at", "-id"], name="order_by_status"),
            models.Index(
                fields=["recheck_at"],
                condition=Q(recheck_at__isnull=False),
                name="order_to_recheck",
            ),
            models.Index(fields=["stored_number", "id"], name="order_as_stored"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(quantity__gt=0), name="order_quantity_positive"),
            models.CheckConstraint(
                condition=Q(total_price__gte=0), name="order_total_price_not_negative"
            ),
            models.CheckConstraint(
                condition=~Q(status__in=["CONFIRMED", "REJECTED"]) | Q(settled_at__isnull=False),
                name="order_settled_has_time",
            ),
            models.CheckConstraint(
                condition=~Q(status="CANCELLED") | Q(cancelled_at__isnull=False),
                name="order_cancelled_has_time",
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def unit_price(self) -> int:
        """The price that one unit was sold at."""
        return self.total_price // self.quantity


class OrderFigures(figures.Figures):
    """How many orders that were accepted in a period have which status, and what they bring in.

    Triggers of migration 0006 add to them whatever is written of an order: a batch adds one row.
    """

    lengths = figures.BY_BAR

    pending = models.IntegerField()
    confirmed = models.IntegerField()
    rejected = models.IntegerField()
    cancelled = models.IntegerField()
    # Two orders may be worth more than a 64-bit integer holds.
    revenue = models.DecimalField(max_digits=40, decimal_places=0)

    class Meta:
        db_table = "order_figures"
        constraints = [figures.constraint("order_figures_once")]
