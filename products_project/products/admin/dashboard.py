"""The start page of the product service's admin."""

from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from django.urls import reverse

from products_project.products import figures
from products_project.products.admin.stock import IS_LOW, low_stock_of, stock_tone
from products_project.products.figures import SoldProducts
from products_project.products.models import Product
from servicekit.backoffice import cards
from servicekit.backoffice.bounded_count import count_rows
from servicekit.backoffice.cards import Card, Series, Tile
from servicekit.backoffice.display import Tone, counted, duration, link
from servicekit.backoffice.money import money
from servicekit.caching.refusals import Refusals
from servicekit.database.figures import one_state
from servicekit.overview import dashboard as common
from servicekit.overview.dashboard import Window

_RUNNING_LOW = Product.objects.filter(IS_LOW, archived_at=None).order_by("qty", "id")
# Of each list of products.
_ROWS = 5
# Of the products with low stock, how many are looked at for what they sold.
_LOOKED_AT = 1000
_REFUSALS: dict[str, tuple[str, Tone]] = {
    "insufficient_stock": ("Not enough in stock", "danger"),
    "product_not_found": ("No such product", "warning"),
    "total_price_too_large": ("Total price too large", "info"),
}


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add the figures to the context of the start page.

    Their cost does not depend on how many movements there are: most of them are counted already.
    """
    shown = common.window(request)
    low = _low_products()
    with one_state():
        sold = figures.sold(
            shown.range, shown.since, best=_ROWS, also=[product.id for product in low]
        )
        flow = figures.flow(shown.range, shown.since)
        refused, is_complete = figures.refused(shown.range, shown.since)
        until = figures.counted_until()
    text = f"Counted up to {until:%-d %b %H:%M:%S} so far" if until else ""
    tiles = [
        _units_tile(sold),
        _revenue_tile(sold),
        _out_of_stock_tile(),
        common.outbox_tile(),
        common.dead_letters_tile(),
    ]
    drawn: list[Card] = [
        _flow_card(flow, shown, text),
        _best_card(sold, shown, text),
        _low_card(_first_to_sell(low, sold), sold, shown),
        _refusals_card(refused, shown, is_complete=is_complete),
        _lost_card(refused, shown),
        common.queues_card(common.depths_of_queues()),
        common.latest_dead_letters_card(),
    ]
    return {**context, **common.context(shown, tiles, drawn)}


def _low_products() -> list[Product]:
    """Return products with little stock, those with least first.

    Every product is looked at: an index on the stock would make each change of a stock write into
    all indexes of its product, which costs orders more than this costs a dashboard.
    """
    return list(_RUNNING_LOW.only("name", "qty", "low_stock")[:_LOOKED_AT])


def _first_to_sell(low: Sequence[Product], sold: SoldProducts) -> list[Product]:
    """Return those with the least stock, of them first those that sell."""

    def rank(product: Product) -> tuple[bool, int, int, int]:
        units = sold.units(product.id)
        return not units, product.qty, -units, -product.id.int

    return sorted(low, key=rank)[:_ROWS]


def _units_tile(sold: SoldProducts) -> Tile:
    return Tile(
        title="Units sold",
        value=f"{sold.total.units:,}",
        note=f"of {counted(sold.products, 'product')}",
        link=reverse("admin:products_stockmovement_changelist"),
    )


def _revenue_tile(sold: SoldProducts) -> Tile:
    return Tile(
        title="Revenue",
        value=money(sold.total.revenue),
        note="at the prices when sold",
        link=reverse("admin:products_stockmovement_changelist") + "?reason__exact=order",
    )


def _out_of_stock_tile() -> Tile:
    out, few = (count_rows(_RUNNING_LOW.filter(**which)) for which in ({"qty": 0}, {"qty__gt": 0}))
    return Tile(
        title="Out of stock",
        value=str(out),
        note=f"{few} more {'runs' if few == 1 else 'run'} low"
        if few
        else "of all products for sale",
        tone="danger" if out else "warning" if few else "success",
        link=reverse("admin:products_product_changelist") + "?stock=out",
    )


def _flow_card(flow: list[dict[str, Any]], shown: Window, text: str) -> Card:
    units = {name: {row["start"]: int(row[name]) for row in flow} for name in ("taken", "added")}
    return cards.over_time(
        [
            Series(label="Taken by orders", colour=cards.SKY, values=units["taken"]),
            Series(label="Added", colour=cards.GREEN, values=units["added"]),
        ],
        since=shown.since,
        until=shown.until,
        bar=shown.range.bar,
        title=f"Stock taken and added per {shown.range.bar_label}",
        note=f"Units, without the initial stock of new products. {text}".strip(),
        empty=f"No stock moved in the {shown.label}. Orders and restocking appear here.",
    )


def _best_card(sold: SoldProducts, shown: Window, text: str) -> Card:
    products = Product.objects.in_bulk(sold.best)
    return Card(
        title="Best sellers",
        note=text,
        bars=[
            {
                "title": products[key].name,
                "description": f"{counted(sold.of[key].units, 'unit')},"
                f" {money(sold.of[key].revenue)}",
                "value": 100 * sold.of[key].units // sold.of[sold.best[0]].units,
                "tone": "success",
                "href": reverse("admin:products_product_change", args=[key]),
            }
            for key in sold.best
            if key in products
        ],
        empty=f"Nothing was sold in the {shown.label}.",
    )


def _refusals_card(refused: Refusals, shown: Window, *, is_complete: bool) -> Card:
    reasons: Counter[str] = Counter()
    for (reason, _product_id), count in refused.items():
        reasons[reason] += count
    return cards.shares(
        [_refusal(reason, count) for reason, count in reasons.most_common()],
        title="Refused orders by reason",
        note="At once or after they were accepted"
        if is_complete
        else "Without the latest of those that were refused at once: Redis, which knows them, is"
        " away",
        empty=f"No order was refused in the {shown.label}.",
    )


def _low_card(low: Sequence[Product], sold: SoldProducts, shown: Window) -> Card:
    return Card(
        title="Low stock",
        note=f"Those that sold in the {shown.label} come first",
        bars=[
            {
                "title": each.name,
                "description": f"{each.qty:,} left",
                "value": 100 * each.qty // (low_stock_of(each.low_stock) or 1),
                "tone": stock_tone(each.qty, each.low_stock),
                "note": _lasts(each.qty, sold.units(each.id), shown),
                "href": reverse("admin:products_product_change", args=[each.id]),
            }
            for each in low
        ],
        empty="No product for sale runs low.",
        action=link(reverse("admin:products_product_changelist") + "?stock=short", "Show all"),
    )


def _lost_card(refused: Refusals, shown: Window) -> Card:
    orders: Counter[UUID] = Counter()
    for (reason, product_id), count in refused.items():
        if reason == "insufficient_stock" and product_id:
            orders[product_id] += count
    most = orders.most_common(_ROWS)
    products = Product.objects.in_bulk([product_id for product_id, _ in most])
    return Card(
        title="Lost demand",
        note=f"Refused in the {shown.label} because stock was short",
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
        empty="No order was refused because stock was short.",
    )


def _lasts(qty: int, sold: int, shown: Window) -> str:
    if not sold:
        return f"no sales in the {shown.label}"
    if not qty:
        return f"{sold:,} sold in the {shown.label}"
    lasts = duration(qty / sold * (shown.until - shown.since).total_seconds())
    return f"{sold:,} sold in the {shown.label}, lasts about {lasts}"


def _refusal(reason: str, count: int) -> tuple[str, int, Tone]:
    label, tone = _REFUSALS.get(reason, (reason, ""))
    return label, count, tone
