"""What was taken, sold and refused over time: counted by the worker, read by the dashboard.

Orders pay nothing for it: movements are counted afterwards, in the order of their ids. Only those
refused after they were accepted add a row of figures in their own transaction, by a trigger.
"""

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Max, Sum

from products_project.products.models import (
    CountedUpTo,
    RefusedOrders,
    Sales,
    StockFigures,
    StockMovement,
)
from servicekit.backoffice.bounded_count import rows_of
from servicekit.caching import refusals
from servicekit.caching.refusals import Refusals
from servicekit.database import figures
from servicekit.database.figures import Range, seconds
from servicekit.database.loop import Loop

COUNTED_TOGETHER = 20_000
"""No step counts more movements, and no page looks at more that are not counted yet."""

_MOVEMENTS, _SLICES = "movements", "refused slices"
_NO_PRODUCT = UUID(int=0)
# How long others may take to end their transactions.
_PATIENCE_SECONDS = 5

# Since what was given back was not sold, it is taken off where it was counted, at its price then.
_MOVED = """
    SELECT moved.id, moved.created_at, moved.product_id, moved.delta, moved.reason,
        coalesce(sold.created_at, moved.created_at) AS sold_at,
        coalesce(
            (SELECT price.price FROM product_price AS price
             WHERE price.product_id = moved.product_id
                AND price.since <= coalesce(sold.created_at, moved.created_at)
             ORDER BY price.since DESC, price.id DESC LIMIT 1),
            (SELECT product.price FROM product WHERE product.id = moved.product_id)
        ) AS price
    FROM (
        SELECT * FROM stock_movement WHERE id > %(after)s AND id <= %(up_to)s
        ORDER BY id LIMIT %(limit)s
    ) AS moved
    -- A row at a time, by the index of its order: no plan may read the whole ledger for it.
    LEFT JOIN LATERAL (
        SELECT created_at FROM stock_movement AS taken
        WHERE moved.reason = 'cancellation' AND taken.order_id = moved.order_id
            AND taken.order_id <> '' AND taken.reason = 'order'
        LIMIT 1
    ) AS sold ON true
"""
_SOLD = """
    SELECT date_trunc('minute', sold_at) AS start, product_id,
        -sum(delta) AS units, -sum(delta * price::numeric) AS revenue
    FROM moved WHERE reason IN ('order', 'cancellation') GROUP BY 1, 2
"""
_FLOW = """
    SELECT date_trunc('minute', created_at) AS start,
        coalesce(-sum(delta) FILTER (WHERE reason = 'order'), 0) AS taken,
        coalesce(sum(delta) FILTER (WHERE delta > 0 AND reason <> 'initial'), 0) AS added
    FROM moved GROUP BY 1
"""


def loops() -> Sequence[Loop]:
    """Return the threads that count and merge. Several of each may run side by side."""
    return [
        Loop("figures", count, every_seconds=5),
        # A row for each product that sells: more often would cost more than it saves.
        Loop("merging figures", merge, every_seconds=30),
    ]


def count() -> bool:
    """Count what is new; return whether there may be more."""
    count_refusals()
    return count_movements()


def merge() -> bool:
    """Merge what is counted; return whether there may be more."""
    return True in [figures.merge(table) for table in (StockFigures, Sales, RefusedOrders)]


def count_movements() -> bool:
    """Count the next movements; return whether there may be more."""
    up_to = _final_up_to(_counted(_MOVEMENTS))
    if up_to is None:
        return False
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        if not figures.lock(cursor, _MOVEMENTS):
            return False
        after = _counted(_MOVEMENTS)
        cursor.execute(
            f"""
            WITH moved AS ({_MOVED}),
                sales AS (
                    INSERT INTO sales (start, product_id, units, revenue) {_SOLD}
                ),
                flow AS (INSERT INTO stock_figures (start, taken, added) {_FLOW})
            SELECT max(id), count(*) FROM moved
            """,  # noqa: S608 - our own words
            {"after": after, "up_to": up_to, "limit": COUNTED_TOGETHER},
        )
        last, count = cursor.fetchone()
        if last is not None:
            _count_up_to(_MOVEMENTS, last)
    return bool(count == COUNTED_TOGETHER)


def count_refusals() -> None:
    """Keep what the API has refused, whose slices Redis forgets after an hour."""
    slices = refusals.slices(_counted(_SLICES) + 1)
    final = {number: told for number, told in (slices or {}).items() if refusals.is_over(number)}
    if not final:
        return
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        if not figures.lock(cursor, _SLICES):
            return
        after = _counted(_SLICES)
        RefusedOrders.objects.bulk_create(
            RefusedOrders(
                start=datetime.fromtimestamp(number * refusals.SLICE_SECONDS, UTC),
                reason=reason,
                product_id=product_id or _NO_PRODUCT,
                orders=orders,
            )
            for number, told in final.items()
            if number > after
            for (reason, product_id), orders in told.items()
        )
        _count_up_to(_SLICES, max(*final, after))


@dataclass(frozen=True)
class Sold:
    """What was sold and not given back: of one product, or of all."""

    units: int = 0
    revenue: int = 0


@dataclass(frozen=True)
class SoldProducts:
    """What was sold within a range."""

    total: Sold
    products: int
    """How many products were."""
    best: Sequence[UUID]
    """Those of which most units were sold, first the most."""
    of: Mapping[UUID, Sold]
    """What was sold of these, and of those that were asked for."""

    def units(self, product_id: UUID) -> int:
        """Return how many units were sold of a product that was asked for."""
        return self.of.get(product_id, Sold()).units


def sold(shown: Range, since: datetime, *, best: int, also: Collection[UUID] = ()) -> SoldProducts:
    """Return what was sold since the beginning of a range."""
    rows = rows_of(
        f"""
        WITH moved AS ({_MOVED}), new AS ({_SOLD}),
            sold AS MATERIALIZED (
                SELECT product_id, sum(units) AS units, sum(revenue) AS revenue
                FROM (
                    SELECT product_id, units, revenue FROM sales
                    WHERE period = %(period)s AND start >= %(since)s
                    UNION ALL
                    SELECT product_id, units, revenue FROM sales
                    WHERE period = 0 AND start >= %(since)s
                    UNION ALL
                    SELECT product_id, units, revenue FROM new WHERE start >= %(since)s
                ) AS counted
                GROUP BY 1 HAVING sum(units) > 0
            ),
            best AS (
                SELECT product_id FROM sold
                ORDER BY units DESC, revenue DESC, product_id LIMIT %(best)s
            ),
            total AS (
                SELECT sum(units) AS all_units, sum(revenue) AS all_revenue, count(*) AS products
                FROM sold
            )
        SELECT sold.*, total.* FROM sold, total
        WHERE product_id IN (SELECT product_id FROM best) OR product_id = ANY(%(also)s)
        ORDER BY units DESC, revenue DESC, product_id
        """,  # noqa: S608 - our own words
        _not_counted()
        | {"period": seconds(shown.step), "since": since, "best": best, "also": [*also]},
    )
    if not rows:
        return SoldProducts(Sold(), 0, [], {})
    return SoldProducts(
        Sold(int(rows[0]["all_units"]), int(rows[0]["all_revenue"])),
        rows[0]["products"],
        [row["product_id"] for row in rows[:best]],
        {row["product_id"]: Sold(int(row["units"]), int(row["revenue"])) for row in rows},
    )


def flow(shown: Range, since: datetime) -> list[dict[str, Any]]:
    """Return how many units were `taken` by orders and `added`, by `start` of what is drawn."""
    return rows_of(
        f"""
        WITH moved AS ({_MOVED}), new AS ({_FLOW})
        SELECT start, sum(taken) AS taken, sum(added) AS added
        FROM (
            SELECT start, taken, added FROM stock_figures
            WHERE period = %(period)s AND start >= %(since)s
            UNION ALL
            SELECT start, taken, added FROM stock_figures WHERE period = 0 AND start >= %(since)s
            UNION ALL
            SELECT start, taken, added FROM new WHERE start >= %(since)s
        ) AS counted
        GROUP BY 1
        """,  # noqa: S608 - our own words
        _not_counted() | {"period": seconds(shown.bar), "since": since},
    )


def counted_until() -> datetime | None:
    """Return up to when stock and sales are counted; None: up to now."""
    after = _counted(_MOVEMENTS)
    new = StockMovement.objects.filter(id__gt=after).order_by("id").values_list("created_at")
    last = new[COUNTED_TOGETHER : COUNTED_TOGETHER + 1].first()
    return last[0] if last else None


def refused(shown: Range, since: datetime) -> tuple[Refusals, bool]:
    """Return the orders that were refused, and whether that is all: Redis knows the latest."""
    rows = RefusedOrders.within(shown.step, since).values_list("reason", "product_id")
    counts: Refusals = Counter()
    for reason, product_id, orders in rows.annotate(Sum("orders")):
        counts[reason, None if product_id == _NO_PRODUCT else product_id] = orders
    first = int(since.timestamp()) // refusals.SLICE_SECONDS
    slices = refusals.slices(max(first, _counted(_SLICES) + 1))
    for told in (slices or {}).values():
        counts.update(told)
    return counts, slices is not None


def _not_counted() -> dict[str, Any]:
    return {"after": _counted(_MOVEMENTS), "up_to": 2**63 - 1, "limit": COUNTED_TOGETHER}


def _counted(name: str) -> int:
    found = CountedUpTo.objects.filter(name=name).values_list("number", flat=True).first()
    return found or 0


def _count_up_to(name: str, number: int) -> None:
    CountedUpTo.objects.update_or_create(name=name, defaults={"number": number})


def _final_up_to(after: int) -> int | None:
    """Return a movement's id before which none will be stored any more; None: nothing new."""
    newest = StockMovement.objects.filter(id__gt=after).aggregate(newest=Max("id"))["newest"]
    # Ids are given before they are committed. Whoever has been given a smaller one, and is not
    # through yet, holds a lock on the table now.
    writers = _writers()
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while newest and writers:
        if time.monotonic() > deadline:
            return None
        time.sleep(0.02)
        writers &= _writers()
    return newest or None


def _writers() -> set[str]:
    """Return the transactions that may have stored movements and not ended."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT virtualtransaction FROM pg_locks
            WHERE locktype = 'relation' AND relation = 'stock_movement'::regclass
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND mode = 'RowExclusiveLock' AND pid <> pg_backend_pid()
            """
        )
        return {row[0] for row in cursor.fetchall()}
