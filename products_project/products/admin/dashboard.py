"""The start page of the product service's admin."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from django.urls import reverse

from products_project.products.admin.stock import LOW_STOCK, stock_tone
from products_project.products.models import Product
from servicekit.backoffice import cards
from servicekit.backoffice.bounded_count import count_rows, rows_of
from servicekit.backoffice.cards import Card, Series, Tile
from servicekit.backoffice.display import Tone, counted, duration, link
from servicekit.caching import refusals
from servicekit.caching.refusals import Refusals
from servicekit.overview import dashboard as common

_LOW_ROWS = 10
# Of the products with low stock, how many are looked at for what they sold.
_LOOKED_AT = 1000
_REFUSALS: dict[str, tuple[str, Tone]] = {
    "insufficient_stock": ("Not enough in stock", "danger"),
    "product_not_found": ("No such product", "warning"),
    "total_price_too_large": ("Total price too large", "info"),
}
_BOUNDS = {"minutes": common.SAMPLE_MINUTES, "limit": common.SAMPLE_LIMIT}


def dashboard(_request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add the figures to the context of the start page.

    Their cost does not depend on how many movements there are: each is taken from a bounded
    sample of the newest, by index.
    """
    taken = _taken_per_minute()
    by_api = refusals.last_hour()
    refused = _refusals() + (by_api or Counter())
    sold = _sold()
    movements = common.sample(taken)
    tiles = [
        _units_tile(sold),
        _out_of_stock_tile(),
        common.outbox_tile(),
        common.dead_letters_tile(),
    ]
    shown: list[Card] = [
        _taken_card(taken, movements),
        _refusals_card(refused, is_complete=by_api is not None),
        _low_card(_running_low(sold), sold),
        _lost_card(refused),
        common.queues_card(common.depths_of_queues()),
        common.latest_dead_letters_card(),
    ]
    return {**context, **common.context(tiles, shown)}


def _taken_per_minute() -> list[dict[str, Any]]:
    return rows_of(
        """
        SELECT date_trunc('minute', created_at) AS minute, count(*) AS count,
               coalesce(-sum(delta) FILTER (WHERE reason = 'order'), 0) AS taken,
               coalesce(sum(delta) FILTER (WHERE delta > 0 AND reason <> 'initial'), 0)
                   AS added,
               min(created_at) AS oldest
        FROM (
            SELECT created_at, delta, reason FROM stock_movement ORDER BY id DESC LIMIT %(limit)s
        ) AS newest
        WHERE created_at > now() - make_interval(mins => %(minutes)s)
        GROUP BY 1
        """,
        _BOUNDS,
    )


def _sold() -> dict[UUID, int]:
    """Return how many units were sold and not given back, by product; nothing of the others."""
    rows = rows_of(
        """
        SELECT product_id, -sum(delta) AS units
        FROM (
            SELECT created_at, product_id, delta, reason FROM stock_movement
            ORDER BY id DESC LIMIT %(limit)s
        ) AS newest
        WHERE created_at > now() - make_interval(mins => %(minutes)s)
            AND reason IN ('order', 'cancellation')
        -- What comes back may have been sold before.
        GROUP BY product_id HAVING sum(delta) < 0
        """,
        _BOUNDS,
    )
    return {row["product_id"]: int(row["units"]) for row in rows}


def _refusals() -> Refusals:
    """Return the orders that were accepted and got no stock."""
    rows = rows_of(
        """
        SELECT reason, count(*) AS count,
               CASE WHEN reason = 'insufficient_stock' THEN product_id END AS product_id
        FROM (
            SELECT reason, outcome, product_id FROM reservation
            WHERE created_at > now() - make_interval(mins => %(minutes)s)
            ORDER BY created_at DESC LIMIT %(limit)s
        ) AS newest
        WHERE outcome = 'REJECTED'
        GROUP BY 1, 3
        """,
        _BOUNDS,
    )
    return Counter({(row["reason"], row["product_id"]): row["count"] for row in rows})


def _running_low(sold: Mapping[UUID, int]) -> list[Product]:
    """Return the products with the least stock, those that sell first.

    Every product is looked at: an index on the stock would make each change of a stock write into
    all indexes of its product, which costs orders more than this costs a dashboard.
    """

    def rank(product: Product) -> tuple[bool, int, int, int]:
        units = sold.get(product.id, 0)
        return not units, product.qty, -units, -product.id.int

    low = Product.objects.filter(archived_at=None, qty__lte=LOW_STOCK).order_by("qty", "id")
    return sorted(low.only("name", "qty")[:_LOOKED_AT], key=rank)[:_LOW_ROWS]


def _units_tile(sold: Mapping[UUID, int]) -> Tile:
    return Tile(
        title="Units sold, last hour",
        value=f"{sum(sold.values()):,}",
        note=f"of {counted(len(sold), 'product')}",
        link=reverse("admin:products_stockmovement_changelist"),
    )


def _out_of_stock_tile() -> Tile:
    low = Product.objects.filter(archived_at=None, qty__lte=LOW_STOCK).order_by("qty", "id")
    out, few = (count_rows(low.filter(**which)) for which in ({"qty": 0}, {"qty__gt": 0}))
    return Tile(
        title="Out of stock",
        value=str(out),
        note=f"{few} more {'has' if few == 1 else 'have'} {LOW_STOCK} or fewer"
        if few
        else "of all products for sale",
        tone="danger" if out else "warning" if few else "success",
        link=reverse("admin:products_product_changelist") + "?stock=out",
    )


def _taken_card(taken: list[dict[str, Any]], sample: common.Sample) -> Card:
    units: dict[str, dict[datetime, int]] = {
        name: {row["minute"]: int(row[name]) for row in taken} for name in ("taken", "added")
    }
    return cards.per_minute(
        [
            Series(label="Taken by orders", colour=cards.SKY, values=units["taken"]),
            Series(label="Added", colour=cards.GREEN, values=units["added"]),
        ],
        since=sample.since,
        until=sample.until,
        title="Stock taken and added per minute",
        note=f"Units, without the initial stock of new products. {sample.text}",
        empty="No stock moved in the last hour. Orders and restocking appear here as they happen.",
    )


def _refusals_card(refused: Refusals, *, is_complete: bool) -> Card:
    reasons: Counter[str] = Counter()
    for (reason, _product_id), count in refused.items():
        reasons[reason] += count
    return cards.shares(
        [_refusal(reason, count) for reason, count in reasons.most_common()],
        title="Refused orders by reason",
        note=f"The last {common.SAMPLE_MINUTES} minutes, at once or after they were accepted"
        if is_complete
        else "Those alone that were accepted before: Redis, which knows the others, is away",
        empty="No order was refused in the last hour.",
    )


def _low_card(low: Sequence[Product], sold: Mapping[UUID, int]) -> Card:
    return Card(
        title="Low stock",
        note=f"{LOW_STOCK} or fewer left; first what sold in the last hour",
        width="lg:col-span-2",
        bars=[
            {
                "title": each.name,
                "description": f"{each.qty:,} left",
                "value": 100 * each.qty // LOW_STOCK,
                "tone": stock_tone(each.qty),
                "note": _lasts(each.qty, sold.get(each.id, 0)),
                "href": reverse("admin:products_product_change", args=[each.id]),
            }
            for each in low
        ],
        empty=f"Every product for sale has more than {LOW_STOCK} in stock.",
        action=link(reverse("admin:products_product_changelist") + "?stock=short", "Show all"),
    )


def _lost_card(refused: Refusals) -> Card:
    orders: Counter[UUID] = Counter()
    for (reason, product_id), count in refused.items():
        if reason == "insufficient_stock" and product_id:
            orders[product_id] += count
    most = orders.most_common(_LOW_ROWS)
    products = Product.objects.in_bulk([product_id for product_id, _ in most])
    return Card(
        title="Lost demand",
        note="Refused in the last hour for want of stock",
        bars=[
            {
                "title": products[product_id].name,
                "description": counted(count, "order"),
                "value": 100 * count // most[0][1],
                "tone": "danger",
                "href": reverse("admin:products_product_change", args=[product_id]),
            }
            for product_id, count in most
            if product_id in products
        ],
        empty="No order was refused for want of stock.",
    )


def _lasts(qty: int, sold: int) -> str:
    if not sold:
        return "no sales in the last hour"
    if not qty:
        return f"{sold:,} sold in the last hour"
    lasts = duration(qty / sold * common.SAMPLE_MINUTES * 60)
    return f"{sold:,} sold in the last hour, lasts about {lasts}"


def _refusal(reason: str, count: int) -> tuple[str, int, Tone]:
    label, tone = _REFUSALS.get(reason, (reason, ""))
    return label, count, tone
