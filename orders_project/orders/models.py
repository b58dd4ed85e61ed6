"""Orders."""

from collections.abc import Iterable, Sequence
from typing import ClassVar
from uuid import UUID

from django.db import connection, models
from django.db.models import Q
from django.db.models.functions import Now

from servicekit.contracts.commands import AcceptedOrder
from servicekit.identifiers import new_id
from servicekit.timestamps import now_in_milliseconds

ANNOUNCE_AGAIN_AFTER_SECONDS = 30
"""How long an order may wait for its outcome before the watchdog asks again."""


class OrderManager(models.Manager["Order"]):
    """Writes and locks orders in bulk."""

    def insert_new(self, orders: Sequence[AcceptedOrder]) -> set[UUID]:
        """Store those that are not stored yet, and return their ids."""
        if not orders:
            return set()
        # Sorted, so that two batches with the same orders wait for each other, not in a circle.
        rows = sorted(orders, key=lambda order: order.id)
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO "order" (
                    id, product_id, quantity, total_price, created_at,
                    status, reason, stored_at, announce_at
                )
                SELECT *, 'PENDING', '', now(), now() + make_interval(secs => %s)
                FROM unnest(%s::uuid[], %s::uuid[], %s::int[], %s::bigint[], %s::timestamptz[])
                ON CONFLICT (id) DO NOTHING
                RETURNING id
                """,
                [
                    ANNOUNCE_AGAIN_AFTER_SECONDS,
                    [order.id for order in rows],
                    [order.product_id for order in rows],
                    [order.quantity for order in rows],
                    [order.total_price for order in rows],
                    [order.created_at for order in rows],
                ],
            )
            return {row[0] for row in cursor.fetchall()}

    def lock(self, ids: Iterable[UUID]) -> dict[UUID, "Order"]:
        """Return the orders that exist, locked until the end of the transaction."""
        locked = self.filter(id__in=sorted(set(ids))).order_by("id")
        return {order.id: order for order in locked.select_for_update(no_key=True)}

    def write_outcomes(self, orders: Iterable["Order"]) -> None:
        """Write what locked orders were told about their stock, one statement for all."""
        rows = [
            (o.id, o.status, o.reason, o.announced_at, o.decided_at, o.settled_at, o.released_at)
            for o in orders
        ]
        if not rows:
            return
        with connection.cursor() as cursor:
            cursor.execute(
                """
                UPDATE "order" SET
                    status = new.status, reason = new.reason, announced_at = new.announced_at,
                    decided_at = new.decided_at, settled_at = new.settled_at,
                    released_at = new.released_at
                FROM unnest(
                    %s::uuid[], %s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[],
                    %s::timestamptz[], %s::timestamptz[]
                ) AS new (id, status, reason, announced_at, decided_at, settled_at, released_at)
                WHERE "order".id = new.id
                """,
                [list(column) for column in zip(*rows, strict=True)],
            )

    def claim_overdue(self, limit: int) -> list["Order"]:
        """Lock the orders that have waited too long for their outcome, the longest first."""
        overdue = self.filter(status=Order.Status.PENDING, announce_at__lte=Now())
        return list(overdue.order_by("announce_at").select_for_update(skip_locked=True)[:limit])


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
    # When the watchdog asks again about an order that is still PENDING.
    announce_at = models.DateTimeField()

    objects: ClassVar[OrderManager] = OrderManager()

    class Meta:
        db_table = "order"
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="order_latest"),
            models.Index(fields=["product_id", "-created_at", "-id"], name="order_of_product"),
            models.Index(fields=["status", "-created_at", "-id"], name="order_by_status"),
            models.Index(
                fields=["announce_at"], condition=Q(status="PENDING"), name="order_overdue"
            ),
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
